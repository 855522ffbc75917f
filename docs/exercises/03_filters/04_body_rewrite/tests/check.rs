//! Checks that the word is replaced at every place, for every way to cut the body into pieces, and that
//! nothing else is changed.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use ex0304::{BodyRewrite, Rewriter};
use http::Request;
use testkit::{Behaviour, Client, Origin, exchange, expect, serve};

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

/// Returns what a rewriter passes on after each of `pieces`, none of which is the last one.
fn passed_on(pieces: &[&str]) -> Vec<String> {
    let mut rewriter = Rewriter::default();
    let passed = pieces.iter().map(|piece| rewriter.push(piece.as_bytes(), false));
    passed.map(|bytes| String::from_utf8(bytes).unwrap()).collect()
}

#[test]
fn bytes_that_cannot_begin_a_match_are_passed_on_at_once() {
    let event = "data: hello\n\n";
    expect!(passed_on(&[event]), [event], "what is passed on of an event, before the next one comes");
    let what = "what is passed on after each piece of a body that goes on";
    expect!(passed_on(&["the origin"]), ["the backend"], "{what}: one that ends with the word");
    expect!(passed_on(&["the o", "x"]), ["the ", "ox"], "{what}: the first one ends with an o");
    expect!(passed_on(&["ori", "g", "i", "n"]), ["", "", "", "backend"], "{what}: four parts of the word");
    expect!(passed_on(&["oror"]), ["or"], "{what}: only its last two bytes may begin the word");
    expect!(passed_on(&["origi", "x", ""]), ["", "origix", ""], "{what}: the word does not come");
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

#[tokio::test]
async fn a_body_that_is_not_text_is_unchanged() {
    let origin = Origin::start().await;
    let proxy = serve(BodyRewrite { upstream: origin.address() });
    let answer = Client::new().get(proxy.url("/anything")).await;
    expect!(answer.text(), contains "\"origin\":", "a body with Content-Type application/json");
}

#[tokio::test]
async fn a_range_of_the_old_body_is_not_asked_for() {
    let origin = Origin::start().await;
    let proxy = serve(BodyRewrite { upstream: origin.address() });
    let request = Request::get(proxy.url("/")).header("Range", "bytes=3-").body(Default::default());
    Client::new().send(request.unwrap()).await;
    expect!(origin.received()[0].header("range"), "", "Range at the upstream");
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_no_chunks() {
    let origin = Origin::start().await;
    let proxy = serve(BodyRewrite { upstream: origin.address() });
    let answer = exchange(proxy.address(), b"GET / HTTP/1.0\r\n\r\n").await;
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned();
    expect!(
        body,
        format!("hello from backend {}\n", origin.label()),
        "the body that a client of HTTP/1.0 gets"
    );
}
