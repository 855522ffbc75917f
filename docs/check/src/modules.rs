//! Rules for dependencies between the gateway's modules. The architecture page has a block below
//! `<!-- rules: gateway -->` that lists, for each top-level module, the modules that it uses. This check reads
//! the sources and compares both.
//!
//! Some rules do not depend on the page: there is no cycle, policies do not use one another, and `config`
//! uses neither the rest of the gateway nor Pingora. Tests in the sources may use any module.

mod source;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use source::{Sources, Use};

use crate::markdown::{Block, Document};
use crate::{Fault, diff};

/// Map from each top-level module to the top-level modules that it uses.
type Graph = BTreeMap<String, BTreeSet<String>>;

/// Checks the crate in the directory `sources`. Returns a fault for each violation of a fixed rule, and for
/// each difference from the rules on the page.
pub fn check(documents: &[Document], directory: &str, read: impl Fn(&str) -> Option<String>) -> Vec<Fault> {
    let sources = match source::sources(directory, read) {
        Ok(sources) => sources,
        Err(fault) => return vec![fault],
    };
    let graph = graph(&sources);
    let mut faults: Vec<Fault> = sources.uses.iter().filter_map(|found| forbidden(found, &sources)).collect();
    let modules = circle(&graph).map(|circle| ("modules", circle));
    if let Some((what, circle)) = modules.or_else(|| Some(("files", circle(&files(&sources))?))) {
        let what = format!("these {what} use one another in a circle: {}", circle.join(" -> "));
        faults.push(Fault::new(&format!("{directory}/lib.rs"), 0, what));
    }
    let mut pages = 0;
    for document in documents {
        for (mark, block) in document.marked("rules").filter(|(mark, _)| mark.value == "gateway") {
            pages += 1;
            faults.extend(compare(&document.path, mark.line, block, &graph, &sources));
        }
    }
    if pages == 0 {
        let table = table(&graph, &[]);
        let what = format!(
            "no page has the rules: put `<!-- rules: gateway -->` above a ```text block with\n{table}"
        );
        faults.push(Fault::new("docs/src/architecture.md", 0, what));
    }
    faults
}

/// Returns a fault for a use that no page can allow: a policy that uses another policy, or a configuration
/// that uses running code.
fn forbidden(found: &Use, sources: &Sources) -> Option<Fault> {
    let is_module =
        |path: &[String]| sources.modules.contains(path) || path.last().is_some_and(|name| name == "*");
    let fault = |what: String| Some(Fault::new(&found.file, 0, what));
    match (&found.from[..], &found.to[..]) {
        ([top, one, ..], [to, other, ..])
            if top == "policy" && to == top && one != other && is_module(&found.to[..2]) =>
        {
            fault(format!("{one} uses {other}, but a policy must not use another policy"))
        }
        ([top, ..], []) if top == "config" && found.external.starts_with("pingora") => fault(format!(
            "config uses {}, but config is plain data and must not use Pingora",
            found.external
        )),
        ([top, ..], [to, ..]) if top == "config" && to != top && is_module(&found.to[..1]) => {
            fault(format!("config uses {to}, but config must not use another module"))
        }
        _ => None,
    }
}

/// Returns the graph of uses between top-level modules. The code of `lib.rs` itself belongs to no module.
fn graph(sources: &Sources) -> Graph {
    let top = sources.modules.iter().filter(|module| module.len() == 1);
    let mut graph: Graph = top.map(|module| (module[0].clone(), BTreeSet::new())).collect();
    for found in &sources.uses {
        let (Some(from), Some(to)) = (found.from.first(), found.to.first()) else { continue };
        if from != to && (to == "*" || graph.contains_key(to)) {
            graph.entry(from.clone()).or_default().insert(to.clone());
        }
    }
    graph
}

/// Returns the module of the file that has `path`: the longest part of the path that is a module.
fn file<'p>(sources: &Sources, path: &'p [String]) -> Option<&'p [String]> {
    (1..=path.len()).rev().map(|length| &path[..length]).find(|module| sources.modules.contains(*module))
}

/// Returns which files use which, each as the path of its module. A `mod.rs` that re-exports what its children have
/// uses none of them.
fn files(sources: &Sources) -> Graph {
    let mut graph = Graph::new();
    for found in &sources.uses {
        let (Some(from), Some(to)) = (file(sources, &found.from), file(sources, &found.to)) else { continue };
        if from != to {
            graph.entry(from.join("::")).or_default().insert(to.join("::"));
        }
    }
    graph
}

/// Returns the first cycle, as a path that ends at its start.
fn circle(graph: &Graph) -> Option<Vec<String>> {
    fn walk<'a>(
        graph: &'a Graph,
        path: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<String>> {
        let here = *path.last()?;
        for next in graph.get(here).into_iter().flatten() {
            if let Some(start) = path.iter().position(|module| module == next) {
                let circle = path[start..].iter().copied().chain([next.as_str()]);
                return Some(circle.map(str::to_owned).collect());
            }
            if !done.contains(next.as_str()) {
                path.push(next);
                let circle = walk(graph, path, done);
                path.pop();
                if circle.is_some() {
                    return circle;
                }
            }
        }
        done.insert(here);
        None
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|module| walk(graph, &mut vec![module], &mut done))
}

/// Returns a fault if the page's table differs from the code.
fn compare(page: &str, line: usize, block: &Block, graph: &Graph, sources: &Sources) -> Vec<Fault> {
    let (rules, order) = match parse(page, block) {
        Ok(parsed) => parsed,
        Err(fault) => return vec![fault],
    };
    if rules == *graph {
        return Vec::new();
    }
    let right = table(graph, &order);
    let none = BTreeSet::new();
    let allowed = |module: &str| rules.get(module).unwrap_or(&none);
    let mut what = "the rules differ from the code".to_owned();
    for (from, used) in graph {
        for to in used.difference(allowed(from)) {
            let found =
                sources.uses.iter().find(|u| u.from.first() == Some(from) && u.to.first() == Some(to));
            let place = found.map_or(String::new(), |found| format!(", in {}", found.file));
            what.push_str(&format!("\n  {from} uses {to}{place}, which the rules do not allow"));
        }
    }
    let diff = diff(&block.text, &right);
    vec![Fault::fixable(page, line, format!("{what}\n{diff}"), block.rewrite(&right))]
}

/// Parses the table on the page. Returns the rules and the order of their lines.
fn parse(page: &str, block: &Block) -> Result<(Graph, Vec<String>), Fault> {
    let (mut rules, mut order) = (Graph::new(), Vec::new());
    for (line, text) in (block.line + 1..).zip(block.text.lines()).filter(|(_, text)| !text.trim().is_empty())
    {
        let rule = text.split_once("->").ok_or("is not a rule; expected `module -> other, another`");
        let rule = rule.and_then(|(module, used)| {
            let used = used.split(',').map(|used| used.trim().to_owned()).filter(|used| !used.is_empty());
            let module = module.trim().to_owned();
            order.push(module.clone());
            rules.insert(module, used.collect()).map_or(Ok(()), |_| Err("is a second rule for its module"))
        });
        rule.map_err(|what| Fault::new(page, line, format!("'{text}' {what}")))?;
    }
    Ok((rules, order))
}

/// Returns the table that matches the code, in the page's order. New modules follow at the end, users before
/// the modules that they use.
fn table(graph: &Graph, order: &[String]) -> String {
    let place = |module: &String| order.iter().position(|known| known == module).unwrap_or(usize::MAX);
    let mut modules: Vec<&String> = graph.keys().collect();
    modules.sort_by_key(|module| (place(module), Reverse(height(graph, module, graph.len()))));
    let width = modules.iter().map(|module| module.len()).max().unwrap_or(0);
    let row = |module: &String| {
        let used: Vec<_> = graph[module].iter().map(String::as_str).collect();
        format!("{}\n", format!("{module:width$} -> {}", used.join(", ")).trim_end())
    };
    modules.into_iter().map(row).collect()
}

/// Returns the number of layers below a module. In a cycle, `limit` ends the count.
fn height(graph: &Graph, module: &str, limit: usize) -> usize {
    let below = graph.get(module).into_iter().flatten().filter(|_| limit > 0);
    below.map(|used| 1 + height(graph, used, limit - 1)).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks a small crate against a page with these rules, and returns the faults.
    fn faults(sources: &[(&str, &str)], rules: &str) -> Vec<Fault> {
        let page = format!("<!-- rules: gateway -->\n```text\n{rules}```\n");
        let read = |file: &str| Some(sources.iter().find(|(name, _)| *name == file)?.1.to_owned());
        check(&[Document::parse("page.md", &page)], "src", read)
    }

    const LIB: (&str, &str) = ("src/lib.rs", "pub mod proxy; pub mod policy; mod config;");
    const PROXY: (&str, &str) = ("src/proxy.rs", "use crate::{config::Config, policy::auth};");
    const POLICY: (&str, &str) = ("src/policy/mod.rs", "pub mod auth; pub mod cors; pub enum Verdict {}");
    const AUTH: (&str, &str) = ("src/policy/auth.rs", "use super::Verdict; fn f(c: &crate::config::Auth) {}");
    const CORS: (&str, &str) = ("src/policy/cors.rs", "use crate::policy::Verdict;");
    const CONFIG: (&str, &str) = ("src/config.rs", "#[cfg(test)] mod tests { use crate::proxy::P; }");
    const FINE: [(&str, &str); 6] = [LIB, PROXY, POLICY, AUTH, CORS, CONFIG];
    const RULES: &str = "proxy -> config, policy\npolicy->config\n\nconfig ->\n";

    fn with(file: (&'static str, &'static str)) -> Vec<(&'static str, &'static str)> {
        FINE.into_iter().map(|old| if old.0 == file.0 { file } else { old }).collect()
    }

    #[test]
    fn files_that_use_one_another_are_found() {
        let one = ("src/policy/auth.rs", "use super::cors::Cors; use super::Verdict;");
        let other = ("src/policy/cors.rs", "pub struct Cors; use crate::policy::auth::Auth;");
        let sources: Vec<_> =
            with(one).into_iter().map(|old| if old.0 == other.0 { other } else { old }).collect();
        let faults = faults(&sources, RULES);
        let circle = "these files use one another in a circle: policy::auth -> policy::cors -> policy::auth";
        assert!(faults.iter().any(|fault| fault.to_string().contains(circle)), "{faults:?}");
    }

    #[test]
    fn page_that_matches_the_code_has_no_faults() {
        assert_eq!(faults(&FINE, RULES), []);
    }

    #[test]
    fn wrong_rules_are_rewritten_in_the_order_of_the_page() {
        for (rules, part) in [
            (
                "proxy -> config\npolicy -> config\nconfig ->\n",
                "proxy uses policy, in src/proxy.rs, which the rules",
            ),
            ("proxy -> config, policy\npolicy -> config, proxy\nconfig ->\n", "-policy -> config, proxy"),
            ("proxy -> config, policy\npolicy -> config\n", "+config ->"),
            ("proxy -> config, policy\npolicy -> config\nconfig ->\nx ->\n", "-x ->"),
        ] {
            let faults = faults(&FINE, rules);
            assert!(faults.len() == 1 && faults[0].what.contains(part), "{part}: {faults:?}");
            let fix = faults[0].fix.clone().unwrap();
            assert_eq!(fix.text, "proxy  -> config, policy\npolicy -> config\nconfig ->\n");
        }
    }

    #[test]
    fn rules_must_be_readable_and_unique_for_a_module() {
        for (rules, part) in [("proxy: config\n", "is not a rule"), ("a -> b\na -> c\n", "is a second rule")]
        {
            let faults = faults(&FINE, rules);
            assert!(faults.len() == 1 && faults[0].what.contains(part), "{faults:?}");
        }
        let read = |file: &str| Some(FINE.iter().find(|(name, _)| *name == file)?.1.to_owned());
        let faults = check(&[], "src", read);
        assert!(
            faults[0].what.ends_with("proxy  -> config, policy\npolicy -> config\nconfig ->\n"),
            "{faults:?}"
        );
    }

    #[test]
    fn cycle_between_modules_is_found() {
        let sources = with(("src/policy/auth.rs", "fn f() { crate::proxy::go(crate::config::x) }"));
        let faults = faults(&sources, "proxy -> config, policy\npolicy -> config, proxy\nconfig ->\n");
        assert!(faults.len() == 1 && faults[0].what.ends_with("policy -> proxy -> policy"), "{faults:?}");
    }

    #[test]
    fn policy_that_uses_another_policy_is_found() {
        for source in
            ["use crate::policy::auth::A;", "fn f(a: super::auth::A) {}", "use super::{Verdict, auth};"]
        {
            let faults = faults(&with(("src/policy/cors.rs", source)), RULES);
            assert!(faults.len() == 1 && faults[0].file == "src/policy/cors.rs", "{faults:?}");
            assert!(faults[0].what.contains("a policy must not use another policy"), "{faults:?}");
        }
    }

    #[test]
    fn config_that_uses_gateway_or_pingora_is_found() {
        let faults_of = |source| faults(&with(("src/config.rs", source)), RULES);
        for source in ["use pingora::prelude::*;", "fn f() { info!(\"{}\", pingora_core::x()) }"] {
            let faults = faults_of(source);
            assert!(faults.len() == 1 && faults[0].what.contains("config uses pingora"), "{faults:?}");
        }
        let faults = faults_of("use super::policy::Verdict;");
        assert!(faults.iter().any(|fault| fault.what.contains("config uses policy")), "{faults:?}");
    }
}
