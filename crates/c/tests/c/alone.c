// The header needs nothing before it.
#include "shmpipe.h"

int main(void) {
    return shmpipe_abi_version() == SHMPIPE_ABI_VERSION ? 0 : 1;
}
