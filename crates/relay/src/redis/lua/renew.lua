-- A node has heard more of the epoch than Redis knew of: writes were lost. What comes next is of a new epoch, which only
-- the first node that asks makes, however far the offsets have come again meanwhile.
-- ARGV: ttl, epoch.
local key = KEYS[1]
local offset, epoch = position(key, tonumber(ARGV[1]))
if epoch == ARGV[2] then
  offset, epoch = 0, begin(key, epoch)
  remember(key, tonumber(ARGV[1]))
end
return { offset, epoch }
