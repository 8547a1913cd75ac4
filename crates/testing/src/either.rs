//! Either end of a pipe, for sets that hold both.

use shmpipe::{Consumer, Endpoint, Member, Producer};

pub enum Either {
    Producer(Producer),
    Consumer(Consumer),
}

impl Member for Either {
    fn endpoint(&mut self) -> Endpoint<'_> {
        match self {
            Either::Producer(producer) => producer.into(),
            Either::Consumer(consumer) => consumer.into(),
        }
    }
}
