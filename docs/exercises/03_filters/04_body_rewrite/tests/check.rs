//! Checks that the word is replaced at every place, for every way to cut the body into pieces, and that
//! nothing else is changed.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use ex0304::{BodyRewrite, Rewriter};
use testkit::{Behaviour, Client, Origin, expect, serve};

/// Returns the output of a rewriter for `pieces`, as text.
fn rewritten(pieces: &[&str]) -> String {
    let mut rewriter = Rewriter::default();
    let last = pieces.len() - 1;
    let out = pieces.iter().enumerate().flat_map(|(i, piece)| rewriter.push(piece.as_bytes(), i == last));
    String::from_utf8(out.collect()).unwrap()
}

#[test]
fn a_whole_match_is_replaced() {
    expect!(rewritten(&["hello from origin A"]), "hello from backend A", "one piece with the word in it");
    expect!(rewritten(&["originorigin"]), "backendbackend", "the word twice");
    expect!(rewritten(&["nothing here"]), "nothing here", "a piece without the word");
}

#[test]
fn a_match_split_anywhere_is_replaced() {
    let text = "the origin, and the origin";
    for at in 0..=text.len() {
        let (head, tail) = text.split_at(at);
        expect!(rewritten(&[head, tail]), "the backend, and the backend", "{head:?}, then {tail:?}");
    }
    expect!(rewritten(&["o", "r", "i", "g", "i", "n"]), "backend", "the word, one letter at a time");
}

#[test]
fn a_beginning_of_a_match_alone_is_unchanged() {
    expect!(rewritten(&["orig", "ami"]), "origami", "\"orig\", then \"ami\"");
    expect!(rewritten(&["ororigin", ""]), "orbackend", "the first two letters of the word before the word");
    expect!(rewritten(&["the end: ori"]), "the end: ori", "a body that ends in the middle of the word");
}

#[test]
fn bytes_that_are_not_text_pass_unchanged() {
    let mut rewriter = Rewriter::default();
    let bytes = [rewriter.push(&[0xC3], false), rewriter.push(&[0xA9, 0xFF], true)].concat();
    expect!(bytes, [0xC3, 0xA9, 0xFF], "the bytes C3, then A9 and FF");
}

#[test]
fn bytes_outside_a_match_are_not_held_back() {
    let mut rewriter = Rewriter::default();
    let now = rewriter.push(&[b'x'; 1000], false).len();
    expect!(now > 990, true, "of 1000 bytes without the word, {now} are passed on at once");
}

#[tokio::test]
async fn a_client_gets_the_rewritten_body() {
    let origin = Origin::start().await;
    let proxy = serve(BodyRewrite { upstream: origin.address() });
    let answer = Client::new().get(proxy.url("/")).await;
    expect!(answer.text(), contains "hello from backend", "the body of GET /");
    origin.behave(Behaviour::Chunks(&["from ori", "gin to orig", "in"]));
    let answer = Client::new().get(proxy.url("/")).await;
    expect!(
        answer.text(),
        "from backend to backend",
        "a body that came as \"from ori\", \"gin to orig\", \"in\""
    );
}
