-- Asked by `target test` as the administrator, in each database; not installed. What is not as `target trust` left it, one
-- row each: which kind, and the names that belong to it. $1 the administrator, $2 the group roles and owners, $3 the
-- databases of entitlements.
with recursive
  ours (oid, name) as (
    select oid, rolname from pg_roles where rolname in ($1, 'tidegate_owner', 'tidegate_sessions', 'tidegate_quarantine')),
  passing (oid) as (
    select m.member from pg_auth_members m join ours on ours.oid = m.roleid join pg_roles r on r.oid = m.member
     where ours.name = 'tidegate_sessions' and r.rolname ~ '^tg_[a-z0-9_]{1,27}$'
        or ours.name = 'tidegate_quarantine' and r.rolname ~ '^tgq_[a-z0-9_]{1,27}$' and not r.rolcanlogin
    union all select oid from pg_roles where rolname ~ '^tgl_[0-9a-f]{32}$' and not rolcanlogin),
  reach (oid) as (
    select oid from pg_roles where rolname = any ($2)
    union select m.roleid from pg_auth_members m join reach on m.member = reach.oid),
  here (oid) as (select oid from pg_database where datname = current_database()),
  -- Columns that 14 and 15 do not have.
  membership as (
    select m.member, m.roleid, member.rolname as who, role.rolname as whose,
           coalesce(to_jsonb(m) ->> 'set_option' = 'false' and to_jsonb(m) ->> 'inherit_option' = 'false', false) as bare
      from pg_auth_members m join pg_roles member on member.oid = m.member join pg_roles role on role.oid = m.roleid),
  expected (setting) as (
    values ('synchronous_commit=local'), ('search_path=pg_catalog'), ('lock_timeout=3s'), ('statement_timeout=60s'),
           ('idle_in_transaction_session_timeout=10s')
    union all select 'transaction_timeout=0' where current_setting('server_version_num')::int >= 170000),
  setting (setting) as (
    select unnest(s.setconfig) from pg_db_role_setting s join ours on ours.oid = s.setrole where ours.name = $1)

select 'attribute' as kind, array[r.rolname::text, a.name] as names
  from pg_roles r join ours using (oid), lateral (values
    ('SUPERUSER', r.rolsuper), ('CREATEROLE', r.rolcreaterole and r.rolname <> 'tidegate_owner'), ('CREATEDB', r.rolcreatedb),
    ('REPLICATION', r.rolreplication), ('BYPASSRLS', r.rolbypassrls), ('LOGIN', r.rolcanlogin and r.rolname <> $1)) a (name, has)
 where a.has
union all
select 'absent', array[n] from unnest(array[$1, 'tidegate_owner', 'tidegate_sessions', 'tidegate_quarantine']) n
 where n not in (select name from ours)
union all
select 'powerless', '{}' from ours join pg_roles r using (oid) where r.rolname = 'tidegate_owner' and not r.rolcreaterole
union all
-- From 16 on CREATEROLE alone gives nothing of what others made.
select 'no admin', array[role.rolname::text] from pg_roles role
 where current_setting('server_version_num')::int >= 160000
   and (role.rolname = any ($2) or role.rolname in ('tidegate_sessions', 'tidegate_quarantine'))
   and not exists (select from pg_auth_members m join ours on ours.oid = m.member
                    where ours.name = 'tidegate_owner' and m.roleid = role.oid and m.admin_option)
union all
select 'member', array[m.who::text, m.whose::text] from membership m
 where m.member in (select oid from ours) and m.roleid not in (select oid from passing)
   and (m.who = 'tidegate_owner' and m.bare and (m.whose = any ($2) or m.whose in ('tidegate_sessions', 'tidegate_quarantine')))
       is not true
    or m.roleid in (select oid from ours) and m.member not in (select oid from passing) and m.member not in (select oid from ours)
       -- From 16 on who makes a role without being a superuser may administer it.
       and (m.bare and m.member = (select nspowner from pg_namespace where nspname = 'tidegate')) is not true
union all
select 'holds', array[ours.name::text, case s.deptype when 'o' then 'owns' else 'has rights on' end,
                      coalesce(pg_describe_object(s.classid, s.objid, s.objsubid), 'something')]
  from pg_shdepend s join ours on ours.oid = s.refobjid and s.refclassid = 'pg_authid'::regclass
  left join pg_proc p on s.classid = 'pg_proc'::regclass and p.oid = s.objid
  left join pg_namespace n on s.classid = 'pg_namespace'::regclass and n.oid = s.objid
  left join pg_class c on s.classid = 'pg_class'::regclass and c.oid = s.objid
 where s.dbid in (0, (select oid from here)) and s.classid <> 'pg_database'::regclass
   and not coalesce(case ours.name
     when $1 then s.deptype = 'a' and (p.pronamespace = 'tidegate'::regnamespace or n.nspname = 'tidegate')
     when 'tidegate_owner' then p.pronamespace = 'tidegate'::regnamespace or n.nspname in ('tidegate', 'tidegate_attic')
       or c.relname = 'routine' and c.relnamespace = (select oid from pg_namespace where nspname = 'tidegate_attic') end, false)
union all
select 'elsewhere', array[ours.name::text, d.datname::text]
  from pg_shdepend s join ours on ours.oid = s.refobjid and s.refclassid = 'pg_authid'::regclass
  join pg_database d on d.oid = s.dbid where d.datname <> all ($3) group by 1, 2
union all
select 'database', array[ours.name::text, a.privilege_type, d.datname::text]
  from pg_database d, aclexplode(d.datacl) a join ours on ours.oid = a.grantee
 where a.privilege_type <> 'CONNECT' or a.is_grantable
union all
select 'database of all', array[a.privilege_type, d.datname::text]
  from pg_database d join here using (oid), aclexplode(d.datacl) a where a.grantee = 0 and a.privilege_type = 'CREATE'
union all
select 'schema of all', array[n.nspname::text]
  from pg_namespace n, aclexplode(n.nspacl) a where a.grantee = 0 and a.privilege_type = 'CREATE' and n.nspname !~ '^pg_'
union all
select 'data of all', array[count(*)::text, (array_agg(n.nspname::text order by c.oid))[1], (array_agg(c.relname::text order by c.oid))[1]]
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where c.relkind in ('r', 'p', 'v', 'm', 'f') and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'tidegate')
   and has_schema_privilege('public', n.oid, 'USAGE')
   and (has_any_column_privilege('public', c.oid, 'SELECT, INSERT, UPDATE, REFERENCES') or has_table_privilege('public', c.oid, 'DELETE, TRUNCATE, TRIGGER'))
having count(*) > 0
union all
select 'definers of all', array[count(*)::text, (array_agg(p.oid::regprocedure::text order by p.oid))[1]]
  from pg_proc p join pg_namespace n on n.oid = p.pronamespace
 where p.prosecdef and n.nspname <> 'tidegate' and n.nspname !~ '^pg_'
   and has_schema_privilege('public', n.oid, 'USAGE') and has_function_privilege('public', p.oid, 'EXECUTE')
having count(*) > 0
union all
select 'default', array[a.grantee_name, d.defaclrole::regrole::text, d.defaclobjtype::text,
                        case d.defaclnamespace when 0 then '' else d.defaclnamespace::regnamespace::text end]
  from pg_default_acl d, lateral (
    select case x.grantee when 0 then 'PUBLIC' else ours.name::text end as grantee_name
      from aclexplode(d.defaclacl) x left join ours on ours.oid = x.grantee
     where (x.grantee = 0 or ours.oid is not null) and not (d.defaclobjtype in ('f', 'T') and x.grantee = 0 and d.defaclnamespace = 0)
     group by 1) a
union all
select 'event trigger', array[e.evtname::text, e.evtfoid::regprocedure::text, o.rolname::text]
  from pg_event_trigger e join pg_proc p on p.oid = e.evtfoid join pg_roles o on o.oid = p.proowner
 where e.evtenabled <> 'D' and not o.rolsuper
union all
select 'setting missing', array[setting] from expected where setting not in (select s.setting from setting s)
union all
select 'setting too many', array[setting] from setting where setting not in (select e.setting from expected e)
union all
select 'group absent', array[g] from unnest($2) g where g not in (select rolname from pg_roles)
union all
select 'group power', array[r.rolname::text, a.name, a.refused::text]
  from pg_roles r join reach using (oid), lateral (values
    ('SUPERUSER', r.rolsuper, true), ('CREATEROLE', r.rolcreaterole, true), ('REPLICATION', r.rolreplication, true),
    ('CREATEDB', r.rolcreatedb, false), ('BYPASSRLS', r.rolbypassrls, false),
    ('of pg_execute_server_program, pg_read_server_files or pg_write_server_files, and so may be the server''s own account',
     r.rolname in ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files'), false)) a (name, has, refused)
 where a.has
union all
select 'group login', array[r.rolname::text] from pg_roles r join reach using (oid) where r.rolcanlogin and not r.rolsuper
