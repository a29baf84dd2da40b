-- Sends a body of 1 MiB with each request.
wrk.method = "POST"
wrk.body = string.rep("m", 1048576)
