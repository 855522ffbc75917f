//! HTML pages for people: a page about one problem, and the list of all problems. The pages load nothing, so that they
//! look the same on every host. Their content security policy allows only the style that they contain.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Method};

use super::Reply;
use super::problem::{Problem, Row};

/// Media type of both kinds of page.
pub(super) const HTML: &str = "text/html; charset=utf-8";

/// Path of the list of problems, which is the same on every host.
pub const PROBLEMS: &str = "/.well-known/gateway/problems";

const STYLE: &str = ":root{color-scheme:light dark;--ink:light-dark(#17211f,#e4ebe8);\
    --soft:light-dark(#586662,#9caca6);--accent:light-dark(#0a6b5d,#56c7b2);--card:light-dark(#fff,#182120)}\
    body{font:15px/1.45 system-ui,sans-serif;max-width:52rem;margin:3rem auto;padding:0 1rem;\
    color:var(--ink);background:light-dark(#f3f4f0,#0f1413)}h1{font-size:1.4rem}a{color:var(--accent)}\
    code{font:.9em ui-monospace,monospace;overflow-wrap:anywhere}dt{font-weight:600}dd{margin:0}\
    small{color:var(--soft)}div{background:var(--card);padding:.7rem 1rem;margin:.7rem 0;border-radius:8px}\
    :target{outline:2px solid var(--accent)}";

/// Content security policy of the pages, which allows only the style that they contain.
pub(super) static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = STANDARD.encode(openssl::sha::sha256(STYLE.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    );
    HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

static LIST: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(list()));

/// Returns the list of problems; `None` if the request asks for something else.
pub fn problems(method: &Method, path: &str) -> Option<Reply> {
    let is_asked_for = path == PROBLEMS && matches!(*method, Method::GET | Method::HEAD);
    is_asked_for.then(|| Reply::content(HTML, LIST.clone()).field(super::CSP, POLICY.clone()))
}

/// Returns a page about `problem`, with a link to `help`, the address of a page with more information.
pub(super) fn of(problem: Problem, status: u16, detail: &str, request_id: &str, help: &str) -> Bytes {
    let Row { title, cause, cure, .. } = problem.row();
    let (detail, request_id, help) = (escape(detail), escape(request_id), escape(help));
    let (cause, cure) = (prose(cause), prose(cure));
    let body = format!(
        "<h1>{status} {title}</h1>\n<p>{detail}</p>\n<p>{cause}</p>\n<p>{cure}</p>\n\
         <p><small>Request <code>{request_id}</code> · <a href=\"{help}\">More about this problem</a></small></p>\n"
    );
    Bytes::from(page(title, &body))
}

fn list() -> String {
    let mut body = "<h1>Problems that the gateway reports</h1>\n<dl>\n".to_owned();
    for Row { status, name, title, cause, cure, .. } in Problem::ALL.iter().map(|problem| problem.row()) {
        let (status, cause, cure) = (status.as_u16(), prose(cause), prose(cure));
        let _ = writeln!(
            body,
            "<div id=\"{name}\"><dt>{title} (<code>{name}</code>, {status})</dt><dd>{cause}</dd>\
             <dd>{cure}</dd></div>"
        );
    }
    page("Problems", &(body + "</dl>\n"))
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n{body}</html>\n"
    )
}

/// Converts the text of a row to HTML. Text between backticks is shown as code.
fn prose(text: &str) -> String {
    let part = |(i, part)| match i % 2 {
        0 => escape(part).into_owned(),
        _ => format!("<code>{}</code>", escape(part)),
    };
    text.split('`').enumerate().map(part).collect()
}

/// Escapes text for use in an element or an attribute, so that a browser does not read it as markup.
fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '"', '\'']) {
        return Cow::Borrowed(text);
    }
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    Cow::Owned(escaped.replace('"', "&quot;").replace('\'', "&#39;"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_the_client_is_escaped() {
        let detail = "the host '<script>alert(1)</script>' & \"more\"";
        let page = of(Problem::UnknownHost, 404, detail, "id-1", "/x?a=\"b\"#unknown_host");
        let page = String::from_utf8(page.to_vec()).unwrap();
        assert!(!page.contains("<script"), "{page}");
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;&#39; &amp; &quot;more&quot;"), "{page}");
        assert!(page.contains("href=\"/x?a=&quot;b&quot;#unknown_host\""), "{page}");
        assert!(page.contains("<code>id-1</code>") && page.contains("<h1>404 This host"), "{page}");
    }

    #[test]
    fn the_list_has_an_anchor_for_each_problem_and_loads_nothing() {
        let list = list();
        for problem in Problem::ALL {
            assert!(list.contains(&format!("<div id=\"{}\">", problem.name())), "{problem:?}");
        }
        assert!(!list.contains("http:") && !list.contains("https:") && !list.contains("<script"), "{list}");
        assert!(list.contains("<code>Retry-After</code>"), "{list}");
    }

    #[test]
    fn problem_list_is_served_for_get_and_head_only() {
        assert!(problems(&Method::GET, PROBLEMS).is_some() && problems(&Method::HEAD, PROBLEMS).is_some());
        assert!(problems(&Method::POST, PROBLEMS).is_none());
        assert!(problems(&Method::GET, "/.well-known/gateway/problems/").is_none());
    }
}
