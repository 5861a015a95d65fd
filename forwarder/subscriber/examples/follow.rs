//! Follows assets, and says what happens: `follow SERVER PUBLIC_KEY RING SUBJECT ASSET…`

#![allow(clippy::print_stdout, reason = "an example prints what it reads")]

use std::error::Error;

use fanout_client::{Options, Pin};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = |name: &str| arguments.next().ok_or(format!("the argument {name} is missing"));
    let server = argument("SERVER")?;
    let pin = Pin::new(argument("PUBLIC_KEY")?, argument("RING")?, argument("SUBJECT")?);
    let assets: Vec<String> = arguments.collect();

    let client = Options::new(pin).connect([server]).await?;
    let mut events = client.events();
    let mut records = client.subscribe_many(assets).await?;
    loop {
        tokio::select! {
            record = records.next() => match record {
                Some(record) => println!("{} {} from {}", record.subject, record.payload.escape_ascii(), record.cluster),
                None => break,
            },
            Some(event) = events.next() => println!("{event:?}"),
        }
    }
    Ok(())
}
