//! Checks that a good file becomes a proxy, and that a bad file gets an error that helps.

use std::sync::atomic::AtomicUsize;

use ex0403::{Balancer, Config};
use testkit::{Client, Origin, expect, serve};

/// Returns the error with which `text` is refused.
fn refused(text: &str) -> String {
    match std::panic::catch_unwind(|| Config::parse(text)) {
        Ok(Ok(_)) => "(no error at all)".to_owned(),
        Ok(Err(error)) => error,
        Err(_) => "(a panic)".to_owned(),
    }
}

fn backend(id: &str, address: impl ToString) -> String {
    format!("[[backends]]\nid = {id:?}\naddress = \"{}\"\n", address.to_string())
}

#[tokio::test]
async fn the_backends_of_a_good_file_get_the_requests() {
    let (a, b) = (Origin::start().await, Origin::start().await);
    let text = backend("a", a.address()) + &backend("b", b.address());
    let parsed = Config::parse(&text);
    expect!(parsed.as_ref().err(), None::<&String>, "the error for a file without a mistake:\n{text}");
    let proxy = serve(Balancer { config: parsed.unwrap(), turn: AtomicUsize::new(0) });
    let client = Client::new();
    for _ in 0..4 {
        client.get(proxy.url("/")).await;
    }
    expect!([a.count("/"), b.count("/")], [2, 2], "how many of four requests each backend got");
}

#[test]
fn a_text_that_is_not_toml_is_refused() {
    expect!(refused("[[backends]"), contains "TOML", "the error for a bracket that is missing");
}

#[test]
fn an_unknown_key_is_named() {
    let text = backend("a", "127.0.0.1:1") + "adress = \"127.0.0.1:2\"\n";
    expect!(refused(&text), contains "adress", "the error for an unknown key");
    let text = format!("thread = 4\n{}", backend("a", "127.0.0.1:1"));
    expect!(refused(&text), contains "thread", "the error for an unknown key at the top level");
}

#[test]
fn a_bad_address_is_refused() {
    expect!(refused(&backend("a", "localhost")), contains "address", "the error for an address without a port");
}

#[test]
fn no_backend_is_refused() {
    expect!(refused("backends = []"), contains "backend", "the error for a file without backends");
    expect!(refused(""), contains "backends", "the error for an empty file");
}

#[test]
fn two_backends_with_the_same_id_are_refused() {
    let [first, second, third] =
        [("web-1", 1), ("web-2", 2), ("web-1", 3)].map(|(id, port)| backend(id, format!("127.0.0.1:{port}")));
    let text = first + &second + &third;
    expect!(refused(&text), contains "web-1", "the error for an id that is used twice");
}
