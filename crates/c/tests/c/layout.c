// Prints where the members of each struct lie, for the test to compare with the library's.
#include "shmpipe.h"

#include <stdio.h>

#define MEMBER(type, member)                                                                                          \
    printf("%s.%s %zu %zu\n", #type, #member, offsetof(type, member), sizeof(((type *)NULL)->member))

int main(void) {
#include "members.h"
    return 0;
}
