//! Checks that only the right credentials pass, and that they do not reach the upstream.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::marker::PhantomData;

use ex0408::{BasicAuth, Secret};
use http::Request;
use testkit::{Client, Origin, Response, expect, serve};

/// Credentials `ada:correct horse` in base64.
const CREDENTIALS: &str = "YWRhOmNvcnJlY3QgaG9yc2U=";

async fn ask(origin: &Origin, authorization: Option<&str>) -> Result<Response, String> {
    let proxy = serve(BasicAuth::new(origin.address(), "ada", "correct horse"));
    let mut request = Request::get(proxy.url("/"));
    if let Some(value) = authorization {
        request = request.header("Authorization", value);
    }
    Client::new().try_send(request.body(Default::default()).unwrap()).await
}

fn status(answer: &Result<Response, String>) -> Result<u16, &String> {
    answer.as_ref().map(|answer| answer.status.as_u16())
}

/// Question to the compiler about the type `T`. The `impl` for types with `==` comes first, where it applies.
struct About<T>(PhantomData<T>);

impl<T: PartialEq> About<T> {
    fn has_eq(&self) -> bool {
        true
    }
}

trait Otherwise {
    fn has_eq(&self) -> bool {
        false
    }
}

impl<T> Otherwise for About<T> {}

#[test]
fn secrets_cannot_be_compared_with_eq() {
    struct Plain;
    expect!(
        About::<Plain>(PhantomData).has_eq(),
        false,
        "whether `==` compiles for a struct that derives nothing"
    );
    expect!(About::<String>(PhantomData).has_eq(), true, "whether `==` compiles for a String");
    expect!(
        About::<Secret>(PhantomData).has_eq(),
        false,
        "whether `==` compiles for a Secret, and takes less time for worse guesses"
    );
}

#[tokio::test]
async fn the_right_credentials_pass() {
    let origin = Origin::start().await;
    for scheme in ["Basic", "basic", "BASIC"] {
        let answer = ask(&origin, Some(&format!("{scheme} {CREDENTIALS}"))).await;
        expect!(status(&answer), Ok(200), "GET / with the right credentials and the scheme {scheme}");
    }
}

#[tokio::test]
async fn the_upstream_does_not_get_the_credentials() {
    let origin = Origin::start().await;
    let answer = ask(&origin, Some(&format!("Basic {CREDENTIALS}"))).await;
    expect!(status(&answer), Ok(200), "GET / with the right credentials");
    expect!(origin.received()[0].header("authorization"), "", "Authorization at the upstream");
}

#[tokio::test]
async fn wrong_credentials_get_401_with_www_authenticate() {
    let origin = Origin::start().await;
    let wrong = [
        None,
        Some("Basic"),
        Some("Basic YWRhOndyb25n"),
        Some("Bearer YWRhOmNvcnJlY3QgaG9yc2U="),
        Some("YWRhOmNvcnJlY3QgaG9yc2U="),
        Some("Basic YWRhOmNvcnJlY3QgaG9yc2U"),
        Some("Basic xYWRhOmNvcnJlY3QgaG9yc2U="),
    ];
    for authorization in wrong {
        let answer = ask(&origin, authorization).await;
        expect!(status(&answer), Ok(401), "GET / with Authorization: {authorization:?}");
        expect!(answer.unwrap().header("www-authenticate"), contains "Basic realm=", "WWW-Authenticate of the 401");
    }
    expect!(origin.received().len(), 0, "how many of these requests the upstream got");
}
