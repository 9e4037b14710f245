-- buckets; answers those that are this member's now
if not get('member ' .. me) then return { 'fenced' } end
if tonumber(get('#claims_from') or 0) > now then return { 'claimed' } end
local mine = { 'claimed' }
for i = 5, #ARGV do
  if redis.call('HSETNX', owners, ARGV[i], me) == 1 then
    count_owned(1)
    changed()
    mine[#mine + 1] = ARGV[i]
  elseif redis.call('HGET', owners, ARGV[i]) == me then
    mine[#mine + 1] = ARGV[i]
  end
end
return mine
