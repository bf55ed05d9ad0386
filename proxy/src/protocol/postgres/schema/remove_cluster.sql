-- A role goes with its memberships and settings. What it owns, or was granted, keeps it: PostgreSQL names that.
select format('drop role %I', r) from unnest(array[:'admin', 'tidegate_owner', 'tidegate_quarantine', 'tidegate_sessions']) r
 where exists (select from pg_roles where rolname = r)
\gexec
