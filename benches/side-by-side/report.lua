-- A script for wrk: sends requests with the credentials of a file in turn, and prints the figures as JSON.
local requests, turn = {}, 0
local pause = os.getenv("SIDE_BY_SIDE_PAUSE")

-- Returns the milliseconds between an answer and the next request of the connection.
if pause then
  function delay()
    return tonumber(pause)
  end
end

function init(arguments)
  for line in io.lines(arguments[1]) do
    local name, value = line:match("^([^:]+): (.+)$")
    requests[#requests + 1] = wrk.format("GET", nil, { [name] = value })
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency, _)
  io.write(string.format(
    '\nJSON {"requests": %d, "seconds": %.6f, "p50": %.1f, "p99": %.1f, "refused": %d, "errors": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
