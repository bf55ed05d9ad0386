-- Once per cluster: the roles that tidegate needs. Variables: admin (name), admin_password (null or a verifier), groups and
-- owners (text arrays), harmless (attributes that only a superuser may name).
--
--   tidegate_sessions    marks every role of a session: pg_hba.conf matches it, and our functions touch nothing without it
--   tidegate_quarantine  marks the heirs: who owns what a session left behind
--   tidegate_owner       owns the functions. Nobody can log in as it, and nobody is a member of it.
--   the administrator    the gateway's login. It has no privilege but to call the functions.
select format('create role %I nologin noinherit', r)
  from unnest(array['tidegate_sessions', 'tidegate_quarantine']) r
 where not exists (select from pg_roles where rolname = r)
\gexec
select 'create role tidegate_owner nologin inherit'
 where not exists (select from pg_roles where rolname = 'tidegate_owner')
\gexec
select format('create role %I login noinherit', :'admin')
 where not exists (select from pg_roles where rolname = :'admin')
\gexec

-- What was there already is brought to what we need, or refused where that would take something from somebody.
select format('do $do$ begin raise exception %L; end $do$',
              'role ' || rolname || ' is a superuser: the gateway may not be one; choose another admin_user')
  from pg_roles where rolsuper and rolname in (:'admin', 'tidegate_owner', 'tidegate_sessions', 'tidegate_quarantine')
\gexec
select format('do $do$ begin raise exception %L; end $do$',
              m.rolname || ' is a member of ' || r.rolname || ': revoke that, or choose another admin_user')
  from pg_auth_members a join pg_roles m on m.oid = a.member join pg_roles r on r.oid = a.roleid
 where m.rolname = :'admin' and not exists (
       select from pg_auth_members s where s.member = r.oid and s.roleid = 'tidegate_sessions'::regrole)
\gexec
select format('do $do$ begin raise exception %L; end $do$',
              'role ' || g || ' does not exist: an entitlement names it; create it first')
  from unnest(:groups || :owners) g where not exists (select from pg_roles where rolname = g)
\gexec
select format('do $do$ begin raise exception %L; end $do$', 'an entitlement may not name ' || g)
  from unnest(:groups || :owners) g where g in (:'admin', 'tidegate_owner', 'tidegate_sessions', 'tidegate_quarantine')
\gexec
alter role tidegate_sessions nologin nocreaterole :harmless password null;
alter role tidegate_quarantine nologin nocreaterole :harmless password null;
alter role tidegate_owner nologin inherit createrole :harmless password null;
-- No password where it proves itself with a certificate of a minute.
alter role :"admin" login noinherit nocreaterole :harmless password :admin_password;

-- With its standby gone, synchronous_commit = on hung past every timeout; a function's own setting ends before the commit.
alter role :"admin" set synchronous_commit = 'local';
alter role :"admin" set search_path = 'pg_catalog';
alter role :"admin" set lock_timeout = '3s';
alter role :"admin" set statement_timeout = '60s';
alter role :"admin" set idle_in_transaction_session_timeout = '10s';
-- From 17 on. Else who owns a database could set one for it that ends our connections.
select format('alter role %I set transaction_timeout = 0', :'admin')
 where current_setting('server_version_num')::int >= 170000
\gexec

-- From 16 on CREATEROLE alone reaches no role that it did not create: ADMIN on just these, without their privileges.
select format('grant %I to tidegate_owner with admin true, inherit false, set false', g)
  from (select unnest(:groups || :owners) union select unnest(array['tidegate_sessions', 'tidegate_quarantine'])) t (g)
 where current_setting('server_version_num')::int >= 160000
\gexec
-- ... and no longer on those that no entitlement names.
select format('revoke %I from tidegate_owner', r.rolname)
  from pg_auth_members a join pg_roles r on r.oid = a.roleid
 where a.member = 'tidegate_owner'::regrole and current_setting('server_version_num')::int >= 160000
   and r.rolname <> all (:groups || :owners || array['tidegate_sessions', 'tidegate_quarantine'])
   and not exists (select from pg_auth_members s where s.member = r.oid
                      and s.roleid in ('tidegate_sessions'::regrole, 'tidegate_quarantine'::regrole))
\gexec
