-- Restrict: if something of yours hangs on it, PostgreSQL names it.
select format('drop routine %s restrict', p.oid::regprocedure)
  from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname = 'tidegate'
\gexec
drop schema if exists tidegate restrict;
-- What routines of sessions said: their heirs are gone by now.
drop table if exists tidegate_attic.routine restrict;
drop schema if exists tidegate_attic restrict;
