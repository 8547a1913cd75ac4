//! What only some operating systems have, as in [`std::os`].

pub mod unix;
