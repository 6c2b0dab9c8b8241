-- Who is present in a channel. `<key>:presence` is a hash of client to what is known of it, as JSON; `<key>:expiry` a sorted
-- set of clients by the second of Redis' clock at which they are gone unless somebody says otherwise; `<key>:users` a hash
-- of user to how many of its clients are present. `VERB`, PUBLISH or SPUBLISH, stands above.
--
-- ARGV: what to do, the time to live in seconds, whether joins and leaves are told ('1'), until which second of Redis'
-- clock the expired are taken out (0: not), then what each part below says.
local key = KEYS[1]
local present, expiry, users = key .. ':presence', key .. ':expiry', key .. ':users'
local ttl, told, deadline = tonumber(ARGV[2]), ARGV[3] == '1', tonumber(ARGV[4])
local FIRST = 5

-- How many expired clients one call takes out.
local MOST_EXPIRED = 500
-- How long a channel is remembered in which no node says anything any more, in seconds: at least, and in times to live.
-- Longer than Redis may be away, or everyone would have joined again after that.
local REMEMBERED, LIVES = 3600, 10

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000

local function tell(what, info)
  if told then
    redis.call(VERB, key, '\1' .. '1 {"' .. what .. '":' .. info .. '}\n')
  end
end

local function user_of(info)
  local fine, decoded = pcall(cjson.decode, info)
  return fine and type(decoded) == 'table' and type(decoded.user) == 'string' and decoded.user or ''
end

local function count(user, by)
  if redis.call('HINCRBY', users, user, by) <= 0 then
    redis.call('HDEL', users, user)
  end
end

local function until_then()
  return string.format('%.3f', now + ttl)
end

-- Whether the client was not present before.
local function enter(client, info, user)
  local before = redis.call('HGET', present, client)
  if before ~= info then
    redis.call('HSET', present, client, info)
    count(user, 1)
    if before then
      count(user_of(before), -1)
    end
  end
  redis.call('ZADD', expiry, until_then(), client)
  return not before
end

local function leave(client)
  local info = redis.call('HGET', present, client)
  redis.call('ZREM', expiry, client)
  if info then
    redis.call('HDEL', present, client)
    count(user_of(info), -1)
    tell('leave', info)
  end
end

-- Takes out who has expired: whoever calls first, so that each leave is told once. 1: there may be more of them.
local function clean()
  if now > deadline then
    return 0
  end
  local late = redis.call('ZRANGEBYSCORE', expiry, '-inf', string.format('%.3f', now), 'LIMIT', 0, MOST_EXPIRED)
  for _, client in ipairs(late) do
    leave(client)
  end
  return #late == MOST_EXPIRED and 1 or 0
end

local function remember()
  local life = string.format('%.0f', math.max(REMEMBERED, LIVES * ttl))
  for _, name in ipairs({ present, expiry, users }) do
    redis.call('EXPIRE', name, life)
  end
end

-- A channel of which Redis has lost a part is begun anew: every node puts back its own.
local function check()
  local there = redis.call('HLEN', present)
  local whole = redis.call('ZCARD', expiry) == there and (redis.call('HLEN', users) > 0) == (there > 0)
  if not whole then
    redis.call('DEL', present, expiry, users)
  end
end

local parts = {}

-- Clients with info and user, each told of unless it was there.
function parts.enter()
  for at = FIRST, #ARGV, 3 do
    if enter(ARGV[at], ARGV[at + 1], ARGV[at + 2]) then
      tell('join', ARGV[at + 1])
    end
  end
  remember()
  return clean()
end

-- The same, told to nobody: Redis had lost them.
function parts.restore()
  for at = FIRST, #ARGV, 3 do
    enter(ARGV[at], ARGV[at + 1], ARGV[at + 2])
  end
  remember()
  return 0
end

-- Clients that are there no more.
function parts.exit()
  for at = FIRST, #ARGV do
    leave(ARGV[at])
  end
  return 0
end

-- Clients that are still there, or none. Answers with those that are not known.
function parts.refresh()
  check()
  local known, missing = {}, {}
  for at = FIRST, #ARGV do
    local client = ARGV[at]
    if redis.call('HEXISTS', present, client) == 1 then
      known[#known + 1] = until_then()
      known[#known + 1] = client
    else
      missing[#missing + 1] = client
    end
  end
  if #known > 0 then
    redis.call('ZADD', expiry, unpack(known))
    remember()
  end
  return { clean(), missing }
end

-- Everyone.
function parts.read()
  return { clean(), redis.call('HVALS', present) }
end

-- How many clients and users.
function parts.stats()
  return { clean(), redis.call('HLEN', present), redis.call('HLEN', users) }
end

return parts[ARGV[1]]()
