-- Once per database that sessions reach: the schema. It stays the installer's, so that tidegate_owner cannot put other
-- functions in place of these. What an older version installed goes; restrict, so that nothing of yours goes with it.
create schema if not exists tidegate;
create schema if not exists tidegate_attic authorization tidegate_owner;
revoke all on schema tidegate, tidegate_attic from public;
select format('drop routine %s restrict', p.oid::regprocedure)
  from pg_proc p where p.pronamespace = 'tidegate'::regnamespace
\gexec
grant usage, create on schema tidegate to tidegate_owner;
set local role tidegate_owner;
