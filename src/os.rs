//! What only some operating systems have, as in [`std::os`]: so far, [`unix`].

pub mod unix;
