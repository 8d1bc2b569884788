-- Rendered by cfscale for the tier enterprise: the third level of the cache, made once in the database of the application.
-- It keeps what the second level evicts, 10 times as long.

create table cache (
  key text primary key,
  value bytea not null,
  expires_at timestamptz not null
);
create index on cache (expires_at);

-- Stores for the time of the second level, in seconds, and clears away a little of what has expired.
create function cache_set(wanted text, content bytea, ttl_seconds double precision) returns void language sql as $$
  delete from cache where key in (select key from cache where expires_at < now() order by expires_at limit 100 for update skip locked);
  insert into cache values (wanted, content, now() + make_interval(secs => 10 * ttl_seconds))
    on conflict (key) do update set value = excluded.value, expires_at = excluded.expires_at;
$$;

create function cache_get(wanted text) returns bytea language sql stable as $$
  select value from cache where key = wanted and expires_at >= now();
$$;
