//! Integration tests: the real gateway binary in front of real origins, over real sockets. Each module covers
//! one feature.

#![allow(clippy::panic, clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod acme;
mod advisories;
mod api_guards;
mod auth;
mod balancing;
mod cases;
mod circuit;
mod command_line;
mod compression;
mod connections;
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
mod log_files;
mod logs;
mod management;
mod metrics;
mod mirror;
mod own_mounts;
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
mod unconfigured;
mod upgrade;
mod upstream;
mod websocket;
mod wildcards;
