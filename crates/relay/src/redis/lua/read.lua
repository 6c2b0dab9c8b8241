-- Where the channel stands, and what its log has behind an offset, if it is of the epoch that is meant.
-- ARGV: ttl, then, where the log is asked for, offset, epoch, about how many bytes at most, how many entries at a time.
local key = KEYS[1]
local offset, epoch = position(key, tonumber(ARGV[1]))
local reply = { offset, epoch }
if not ARGV[2] or ARGV[3] ~= epoch then
  return reply
end
local last, bytes, most, chunk = tonumber(ARGV[2]), 0, tonumber(ARGV[4]), tonumber(ARGV[5])
while last < offset and bytes < most do
  local found = redis.call('XRANGE', key .. ':log', text(last + 1) .. '-0', '+', 'COUNT', chunk)
  for _, entry in ipairs(found) do
    reply[#reply + 1] = entry
    for _, field in ipairs(entry[2]) do
      bytes = bytes + #field
    end
    last = tonumber(string.match(entry[1], '^%d+'))
  end
  if #found < chunk then
    break
  end
end
return reply
