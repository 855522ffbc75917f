//! The gateway's real binary in front of real origins, over real sockets; a module a feature.

#![allow(clippy::panic, clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod acme;
mod advisories;
mod auth;
mod balancing;
mod cases;
mod circuit;
mod command_line;
mod compression;
mod cors;
mod demo;
mod early_answers;
mod early_streams;
mod explain;
mod failover;
mod faults;
mod frames;
mod grpc;
mod h2_peers;
mod headers;
mod http2;
mod hygiene;
mod identity;
mod keeping;
mod limits;
mod logs;
mod management;
mod metrics;
mod mirror;
mod paths;
mod problems;
mod proxy_protocol;
mod rate_limit;
mod reload;
mod replies;
mod retries;
mod routes;
mod shares;
mod sse;
mod stopping;
mod support;
mod tls;
mod upgrade;
mod upstream;
mod websocket;
