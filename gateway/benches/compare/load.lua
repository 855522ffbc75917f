-- wrk's request, from the environment, and one line of results that a program can read. No function runs during the load.
local size = tonumber(os.getenv("BENCH_UPLOAD") or "0")
if size > 0 then
    wrk.method = "POST"
    wrk.body = string.rep("x", size)
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format("RESULT %d %d %d %d %d %d\n", summary.requests, summary.duration, summary.bytes,
        latency:percentile(99), errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
