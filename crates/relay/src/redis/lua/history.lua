-- Where the channel stands, and a part of what is kept of it.
-- ARGV: ttl, how many at most, '+' or '-' for the direction, and the offset that the part begins behind, where given.
local key = KEYS[1]
local offset, epoch = position(key, tonumber(ARGV[1]))
local reply = { offset, epoch }
local most, since = tonumber(ARGV[2]), tonumber(ARGV[4])
if most == 0 or (ARGV[3] == '-' and since and since <= 1) then
  return reply
end
local found
if ARGV[3] == '-' then
  found = redis.call('XREVRANGE', key .. ':log', since and text(since - 1) .. '-0' or '+', '-', 'COUNT', most)
else
  found = redis.call('XRANGE', key .. ':log', since and text(since + 1) .. '-0' or '-', '+', 'COUNT', most)
end
for _, entry in ipairs(found) do
  reply[#reply + 1] = entry
end
return reply
