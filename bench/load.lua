-- What wrk sends for bench/api.py. Arguments: METHOD PREFIX SUFFIX FIRST LAST SESSIONS BODY
-- Every request goes to the next of the conversations FIRST to LAST, in the name of the next line
-- of the file SESSIONS (a cookie, a tab, a CSRF token). A SEND is a POST of a message with a client_id
-- of its own and the text BODY, a POST has BODY as it is. Without a PREFIX that ends in / the path is
-- PREFIX SUFFIX.
local method, prefix, suffix, first, last, body
local sessions, number = {}, 0

-- wrk adds samples for requests that it could not send in time; here is what was really waited. The
-- server repeats the X-Request-ID of its request.
local ffi = require("ffi")
ffi.cdef("typedef struct { long s; long ns; } moment; int clock_gettime(int clock, moment *now);")
local now, sent = ffi.new("moment"), {}
waited = {}
local function milliseconds()
  ffi.C.clock_gettime(1, now)
  return tonumber(now.s) * 1000 + tonumber(now.ns) / 1e6
end
local threads = {}
function setup(thread)
  threads[#threads + 1] = thread
end

function init(arguments)
  method, prefix, suffix = arguments[1], arguments[2], arguments[3]
  first, last, body = tonumber(arguments[4]), tonumber(arguments[5]), arguments[7]
  for line in io.lines(arguments[6]) do
    local cookie, csrf = line:match("^(%S+)\t(%S+)$")
    sessions[#sessions + 1] = {
      ["Cookie"] = "deskline_session=" .. cookie,
      ["X-CSRF-Token"] = csrf,
      ["Content-Type"] = "application/json",
    }
  end
  math.randomseed(os.time() * 1000 + math.floor(os.clock() * 1000000))
end

local function uuid()
  local random = math.random
  return string.format("%08x-%04x-4%03x-8%03x-%06x%06x", random(0, 0xffffffff), random(0, 0xffff),
    random(0, 0xfff), random(0, 0xfff), random(0, 0xffffff), random(0, 0xffffff))
end

function request()
  number = number + 1
  local path = prefix .. suffix
  if prefix:sub(-1) == "/" then
    path = prefix .. (first + number % (last - first + 1)) .. suffix
  end
  local headers = sessions[number % #sessions + 1]
  local id = string.format("load%08d", number)
  headers["X-Request-ID"] = id
  sent[id] = milliseconds()
  if method == "GET" then
    return wrk.format("GET", path, headers)
  end
  if method == "POST" then
    return wrk.format("POST", path, headers, body)
  end
  return wrk.format("POST", path, headers,
    '{"client_id":"' .. uuid() .. '","body":"' .. body .. '"}')
end

function response(status, headers, body)
  local id = headers["X-Request-ID"] or headers["x-request-id"]
  if sent[id] then
    waited[#waited + 1] = string.format("%.3f", milliseconds() - sent[id])
    sent[id] = nil
  end
end

function done(summary, latency)
  local failed = summary.errors
  local all = {}
  for _, value in ipairs(threads[1]:get("waited")) do
    all[#all + 1] = tonumber(value)
  end
  table.sort(all)
  local function share(of)
    return all[math.max(1, math.ceil(#all * of))] or 0
  end
  io.write(string.format(
    'RESULT {"requests":%d,"seconds":%.6f,"refused":%d,"broken":%d,"p50_ms":%.3f,"p99_ms":%.3f,"max_ms":%.3f}\n',
    summary.requests, summary.duration / 1e6, failed.status,
    failed.connect + failed.read + failed.write + failed.timeout,
    share(0.5), share(0.99), share(1)))
end
