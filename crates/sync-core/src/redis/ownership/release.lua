-- buckets
if not get('member ' .. me) then return { 'fenced' } end
for i = 5, #ARGV do
  if redis.call('HGET', owners, ARGV[i]) == me then
    redis.call('HDEL', owners, ARGV[i])
    count_owned(-1)
    changed()
  end
end
return { 'released' }
