-- A node has heard more of the epoch than Redis knows of: writes were lost. What comes next is of a new epoch, which only
-- the first node that asks makes.
-- ARGV: ttl, epoch, the offset up to which it was heard.
local key = KEYS[1]
local offset, epoch = position(key, tonumber(ARGV[1]))
if epoch == ARGV[2] and offset < tonumber(ARGV[3]) then
  offset, epoch = 0, begin(key, epoch)
  remember(key, tonumber(ARGV[1]))
end
return { offset, epoch }
