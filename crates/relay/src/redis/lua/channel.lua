-- What all scripts share: where a channel stands. `<key>:meta` is a hash of offset and epoch, `<key>:log` a stream whose
-- entries are `<offset>-0`. The log never outlives the epoch it was written in.

-- How long a position is remembered at least, in seconds, beside ten times what the history is: a week.
local REMEMBERED = 604800

local function text(offset)
  return string.format('%.0f', offset)
end

-- A Redis that is full or cannot save is still read; one that is no master is not.
local function remember(key, ttl)
  local done = redis.pcall('EXPIRE', key .. ':meta', text(math.max(10 * ttl, REMEMBERED)))
  if type(done) == 'table' and done.err and string.find(done.err, 'READONLY', 1, true) then
    redis.call('EXPIRE', key .. ':meta', REMEMBERED)
  end
end

-- A new epoch, counted from 0; what was kept in another one goes.
local function begin(key, before)
  local time = redis.call('TIME')
  local epoch = string.format('%x%05x', tonumber(time[1]), tonumber(time[2]))
  if epoch == before then
    epoch = epoch .. 'x'
  end
  redis.call('DEL', key .. ':log')
  redis.call('HSET', key .. ':meta', 'epoch', epoch, 'offset', '0')
  return epoch
end

-- Offset and epoch, which begins now where there is none.
local function position(key, ttl)
  local meta = redis.call('HMGET', key .. ':meta', 'offset', 'epoch')
  local offset, epoch = tonumber(meta[1] or '0'), meta[2]
  if not epoch then
    offset, epoch = 0, begin(key)
  end
  remember(key, ttl)
  return offset, epoch
end
