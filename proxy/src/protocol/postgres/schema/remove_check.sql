-- Before anything is removed, and again before the roles are: what waits for a teardown or for a human would lose its mark.
select format('do $do$ begin raise exception %L using hint = %L; end $do$',
              string_agg(m.rolname, ', ' order by m.rolname) || case r.rolname
                when 'tidegate_sessions' then ': sessions, or roles that wait for their teardown'
                else ': heirs, which own what sessions left behind' end,
              case r.rolname when 'tidegate_sessions' then 'stop granting, and see `tidegate lease list`'
                else 'drop what they own, or give it to others (REASSIGN OWNED), and drop them' end)
  from pg_auth_members a join pg_roles m on m.oid = a.member join pg_roles r on r.oid = a.roleid
 where r.rolname in ('tidegate_sessions', 'tidegate_quarantine') and m.rolname ~ '^tgq?_'
 group by r.rolname
\gexec
select format('do $do$ begin raise exception %L; end $do$', string_agg(distinct d.datname, ', ') ||
              ': our functions are there too, and no entitlement names it: drop its schemas tidegate and tidegate_attic first')
  from pg_shdepend s join pg_roles r on r.oid = s.refobjid and s.refclassid = 'pg_authid'::regclass
  join pg_database d on d.oid = s.dbid
 where r.rolname = 'tidegate_owner' and d.datname <> all (:databases) having count(*) > 0
\gexec
