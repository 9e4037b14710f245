-- database, key of the new fence, key of the one before or empty: a read that was sent on an earlier connection, and
-- comes late, finds its fence gone
local db, key, before = ARGV[5], ARGV[6], ARGV[7]
if before ~= '' then delete_fence('fence ' .. me .. ' ' .. db .. ' ' .. before) end
if not get('member ' .. me) then return { 'fenced' } end
redis.call('SELECT', db)
redis.call('XGROUP', 'CREATE', key, group, '0', 'MKSTREAM')
redis.call('SELECT', home)
set('fence ' .. me .. ' ' .. db .. ' ' .. key, '')
return { 'open' }
