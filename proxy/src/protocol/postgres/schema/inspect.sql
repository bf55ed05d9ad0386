-- What teardown asks each time is PL/pgSQL: it keeps its plans as long as the connection is kept, where a function in SQL would plan these
-- long queries anew each time (several times what it takes to run them).

-- Whether nobody should be given what others will make: everybody, roles of sessions or of ours, who is or can become a superuser.
create function tidegate._is_open(p_grantee oid) returns boolean
language sql stable set search_path = pg_catalog, pg_temp as $$
  select p_grantee = 0
      or exists (select from pg_roles where oid = p_grantee and (rolname ~ '^tidegate_' or rolname = session_user))
      or exists (select from pg_auth_members
                  where member = p_grantee and roleid in ('tidegate_sessions'::regrole, 'tidegate_quarantine'::regrole))
      or exists (with recursive reach (oid) as (
                   select p_grantee union select m.roleid from pg_auth_members m join reach on m.member = reach.oid)
                 select from reach join pg_roles r using (oid) where r.rolsuper or r.rolcreaterole)
$$;

-- What the owner's future objects are open to, a line each. A migration that works as the owner may give that to whom it likes,
-- as it may grant what is there; OPEN is what a human looks at.
create function tidegate._given_ahead(p_owner text) returns table (line text)
language sql stable set search_path = pg_catalog, pg_temp as $$
  with owner (oid) as (select oid from pg_roles where rolname = p_owner),
  given (kind, place, grantee, privilege, is_grantable) as (
    select d.defaclobjtype, d.defaclnamespace, x.grantee, x.privilege_type, x.is_grantable
      from pg_default_acl d join owner on owner.oid = d.defaclrole, aclexplode(d.defaclacl) x where x.grantee <> owner.oid
    -- What is built in, as long as nobody said otherwise.
    union select b.kind, 0::oid, 0::oid, b.privilege, false from owner, (values ('f'::"char", 'EXECUTE'), ('T', 'USAGE')) b (kind, privilege)
     where not exists (select from pg_default_acl where defaclrole = owner.oid and defaclnamespace = 0 and defaclobjtype = b.kind)
  )
  select format('%s%s on %s for role %s in schema %s: to %s%s', case when tidegate._is_open(grantee) or is_grantable then 'OPEN ' else '' end,
                privilege, kind, p_owner, case place when 0 then '(any)' else place::regnamespace::text end,
                case grantee when 0 then 'public' else grantee::regrole::text end, case when is_grantable then ', to give on' else '' end)
    from given
$$;

-- What a session could change of roles that it could become, as lists of lines to compare: their own rows, memberships
-- that such a role granted or could grant, default privileges (they survive everything else that teardown does), settings
-- of it and of its databases. The gateway's own roles come and go: left out. "transaction" tells what is younger than the
-- session: what there can be very much of (tables, and privileges on them) is found by that, and costs a mint nothing.
create function tidegate._witness(p_groups text[], p_owner text) returns jsonb
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$ begin return (
  with recursive reach (oid) as (
    select oid from pg_roles where rolname = any (p_groups) or rolname = p_owner
    union select m.roleid from pg_auth_members m join reach on m.member = reach.oid
  ), ours (oid) as (
    select member from pg_auth_members where roleid in ('tidegate_sessions'::regrole, 'tidegate_quarantine'::regrole)
  ), lines (kind, line) as (
    select 'server', system_identifier::text from pg_control_system()
    union all select 'transaction', pg_current_xact_id()::text
    union all select r.kind, r.line from tidegate._role_rows(array(select oid from reach)) r
    -- With its options: admin always, inherit and set from PostgreSQL 16 on.
    union all select 'memberships', format('%s in %s, granted by %s%s', member::regrole, roleid::regrole, grantor::regrole,
                (select ' with ' || string_agg(key, ', ' order by key) from jsonb_each(to_jsonb(m)) where value = 'true'))
      from pg_auth_members m
     where (grantor in (select oid from reach)
            or roleid in (select a.roleid from pg_auth_members a join reach on reach.oid = a.member where a.admin_option))
       and member not in (select oid from ours) and roleid not in (select oid from ours)
       and roleid not in ('tidegate_sessions'::regrole, 'tidegate_quarantine'::regrole)
    union all select 'default privileges', format('%s for role %s in schema %s: %s', defaclobjtype, defaclrole::regrole,
                case defaclnamespace when 0 then '(any)' else defaclnamespace::regnamespace::text end, defaclacl)
      from pg_default_acl where (defaclrole in (select oid from reach) or defaclrole = 'tidegate_sessions'::regrole)
       and defaclrole is distinct from (select oid from pg_roles where rolname = p_owner)
    union all select 'default privileges of the owner', o.line from tidegate._given_ahead(p_owner) o
    union all select 'settings', format('%s %s: %s', case setrole when 0 then '' else setrole::regrole::text end,
                'in database ' || d.datname, setconfig)
      from pg_db_role_setting left join pg_database d on d.oid = setdatabase
     where setrole in (select oid from reach) or setrole = 'tidegate_sessions'::regrole or setrole = 0 and d.datdba in (select oid from reach)
  ), kinds (kind) as (
    select unnest(array['server', 'transaction', 'roles', 'memberships', 'default privileges',
                        'default privileges of the owner', 'settings'])
    union select kind from lines
  )
  select jsonb_object_agg(k.kind, t.said)
    from kinds k, lateral (
      -- Never so much that it could not be kept to compare with: beyond that, whether anything changed.
      select case when coalesce(sum(octet_length(to_jsonb(line)::text)), 0) <= 6000 then coalesce(jsonb_agg(line order by line), '[]')
                  else jsonb_build_array(format('%s lines, digest %s', count(*), md5(string_agg(line, chr(10) order by line)))) end
        from lines l where l.kind = k.kind) t (said)
); end $$;

-- Every role with our mark: of sessions, heirs of what they left, and what lends one to the administrator.
create function tidegate.marked(out name text, out role oid, out part text, out works boolean, out mark text)
returns setof record language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select rolname::text, oid, case when rolname ~ '^tg_' then 'session' when rolname ~ '^tgq_' then 'heir' else 'lender' end,
         rolcanlogin, shobj_description(oid, 'pg_authid')
    from pg_roles r
   where rolname ~ '^tg_' and exists (select from pg_auth_members where roleid = 'tidegate_sessions'::regrole and member = r.oid)
      or rolname ~ '^tgq_' and exists (select from pg_auth_members where roleid = 'tidegate_quarantine'::regrole and member = r.oid)
      or rolname ~ '^tgl_[0-9a-f]{32}$' and not rolcanlogin
$$;

-- Which server this is, and which branch of its history: a restore or a failover shows.
create function tidegate.server() returns text
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  if pg_is_in_recovery() then
    raise exception 'this server is a standby: it cannot say what is left' using errcode = 'TG002';
  end if;
  return format('system identifier %s, timeline %s', (select system_identifier from pg_control_system()),
                ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int);
end $$;

-- Prepared transactions of roles that the session could become, since its mint; the names quoted, ready to be used.
create function tidegate.prepared(p_groups text[], p_owner text, p_minted timestamptz, out gid text, out database text, out owner text)
returns setof record language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  with recursive reach (oid) as (
    select oid from pg_roles where rolname = any (p_groups) or rolname in (p_owner, 'tidegate_sessions')
    union select m.roleid from pg_auth_members m join reach on m.member = reach.oid)
  select quote_literal(x.gid), d.datname::text, x.ownerid::regrole::text
    from pg_prepared_xact() x join reach on reach.oid = x.ownerid join pg_database d on d.oid = x.dbid
   where (x.prepared < p_minted) is not true
$$;

-- What roles that the session could become have got since the mint, or given on as a group. Whoever did it: only the moment
-- is known. With INHERIT a session may do to the objects of its groups what their owner may. What the owner does with its
-- own is what the session is for.
create function tidegate._younger(p_groups text[], p_owner text, p_before jsonb)
returns table (what text, found bigint, items text[], harmless boolean)
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin return query
  with recursive reach (oid) as (
    select oid from pg_roles where rolname = any (p_groups) or rolname in (p_owner, 'tidegate_sessions')
    union select m.roleid from pg_auth_members m join reach on m.member = reach.oid
  ), owners (oid) as (
    select oid from pg_roles where rolname = p_owner
    union select m.roleid from pg_auth_members m join owners on m.member = owners.oid
  ), ours (oid) as (
    select member from pg_auth_members where roleid in ('tidegate_sessions'::regrole, 'tidegate_quarantine'::regrole)
  ), mint (age) as (
    select age((p_before -> 'transaction' ->> 0)::xid8::xid)
  ), acls (what, acl) as (
    select 'relation ' || oid::regclass, relacl from pg_class t, mint where relacl is not null and age(t.xmin) < mint.age
    union all select format('column %s of %s', attname, attrelid::regclass), attacl from pg_attribute t, mint
     where attacl is not null and age(t.xmin) < mint.age
    union all select 'routine ' || oid::regprocedure, proacl from pg_proc t, mint where proacl is not null and age(t.xmin) < mint.age
    union all select 'schema ' || oid::regnamespace, nspacl from pg_namespace t, mint where nspacl is not null and age(t.xmin) < mint.age
    union all select 'type ' || oid::regtype, typacl from pg_type t, mint where typacl is not null and age(t.xmin) < mint.age
    union all select 'language ' || lanname, lanacl from pg_language t, mint where lanacl is not null and age(t.xmin) < mint.age
    union all select 'large object ' || oid, lomacl from pg_largeobject_metadata t, mint where lomacl is not null and age(t.xmin) < mint.age
    union all select 'database ' || datname, datacl from pg_database t, mint where datacl is not null and age(t.xmin) < mint.age
    union all select 'tablespace ' || spcname, spcacl from pg_tablespace t, mint where spcacl is not null and age(t.xmin) < mint.age
    union all select 'server ' || srvname, srvacl from pg_foreign_server t, mint where srvacl is not null and age(t.xmin) < mint.age
    union all select 'foreign data wrapper ' || fdwname, fdwacl from pg_foreign_data_wrapper t, mint
     where fdwacl is not null and age(t.xmin) < mint.age
  )
  select 'made or changed while it lived: SECURITY DEFINER routines of roles that it could become', count(*),
         array_agg(format('%s of %s', tidegate._signature(p.oid), p.proowner::regrole)), false
    from pg_proc p join reach on reach.oid = p.proowner, mint where p.prosecdef and age(p.xmin) < mint.age
  union all
  select 'made while it lived: objects of group roles', count(*),
         array_agg(format('%s of %s', pg_describe_object(s.classid, s.objid, s.objsubid), s.refobjid::regrole)), false
    from pg_shdepend s join reach on reach.oid = s.refobjid, mint
   where s.refclassid = 'pg_authid'::regclass and s.deptype = 'o' and age(s.xmin) < mint.age
     and s.refobjid not in (select oid from owners)
     and s.dbid in (0, (select oid from pg_database where datname = current_database()))
  union all
  select 'changed while it lived: privileges given on', count(*), array_agg(left(format('%s on %s to %s, granted by %s',
         x.privilege_type, what, case x.grantee when 0 then 'public' else x.grantee::regrole::text end, x.grantor::regrole), 300)), false
    from acls, aclexplode(acl) x
   where x.grantor in (select oid from reach) and x.grantor not in (select oid from owners) and x.grantor <> x.grantee
     and x.grantee not in (select oid from ours)
  union all
  -- A group's trigger function is run by whoever writes to the table.
  select 'made or changed while it lived: routines of group roles', count(*),
         array_agg(format('%s of %s', tidegate._signature(p.oid), p.proowner::regrole)), false
    from pg_proc p join reach on reach.oid = p.proowner, mint
   where not p.prosecdef and age(p.xmin) < mint.age and p.proowner not in (select oid from owners)
  union all
  -- Code needs no function of the session's own: a trigger's WHEN, a default or a check runs what is built in, as whoever
  -- comes by. A trigger whose function was emptied, and that has no WHEN, does nothing.
  select 'made while it lived: code on tables of others', count(*), array_agg(pg_describe_object(classid, objid, 0)), false
    from (select 'pg_trigger'::regclass, t.oid, t.tgrelid, 0::oid from pg_trigger t join pg_proc p on p.oid = t.tgfoid, mint
           where not t.tgisinternal and age(t.xmin) < mint.age and t.tgenabled <> 'D'
             and (t.tgqual is not null or p.proowner not in (select member from pg_auth_members where roleid = 'tidegate_quarantine'::regrole))
             and exists (select from reach where has_table_privilege(reach.oid, t.tgrelid, 'trigger'))
          union all select 'pg_rewrite'::regclass, t.oid, ev_class, 0 from pg_rewrite t, mint where age(t.xmin) < mint.age
          union all select 'pg_policy'::regclass, t.oid, polrelid, 0 from pg_policy t, mint where age(t.xmin) < mint.age
          union all select 'pg_attrdef'::regclass, t.oid, adrelid, 0 from pg_attrdef t, mint where age(t.xmin) < mint.age
          union all select 'pg_constraint'::regclass, t.oid, conrelid, contypid from pg_constraint t, mint
           where contype = 'c' and age(t.xmin) < mint.age
          -- A domain's default is in its own row.
          union all select 'pg_type'::regclass, t.oid, 0, t.oid from pg_type t, mint
           where typtype = 'd' and typdefaultbin is not null and age(t.xmin) < mint.age
          union all select 'pg_cast'::regclass, t.oid, 0, y.oid from pg_cast t join pg_type y on y.oid in (castsource, casttarget), mint
           where age(t.xmin) < mint.age) code (classid, objid, relation, type)
    left join pg_class c on c.oid = code.relation left join pg_type y on y.oid = code.type,
         lateral (select coalesce(c.relowner, y.typowner)) owner (oid)
   where owner.oid not in (select oid from owners)
     and owner.oid not in (select member from pg_auth_members where roleid = 'tidegate_quarantine'::regrole)
     and (classid = 'pg_trigger'::regclass or owner.oid in (select oid from reach));
  -- From PostgreSQL 15 on.
  if to_regclass('pg_parameter_acl') is not null then
    return query execute $younger$
      select 'changed while it lived: privileges on parameters, given on', count(*), array_agg(format('%s on parameter %s to %s, granted by %s',
             x.privilege_type, t.parname, case x.grantee when 0 then 'public' else x.grantee::regrole::text end, x.grantor::regrole)), false
        from pg_parameter_acl t, aclexplode(t.paracl) x, (
          with recursive reach (oid) as (
            select oid from pg_roles where rolname = any ($1) or rolname in ($2, 'tidegate_sessions')
            union select m.roleid from pg_auth_members m join reach on m.member = reach.oid)
          select array_agg(oid) from reach) reach (oids)
       where age(t.xmin) < age(($3 -> 'transaction' ->> 0)::xid8::xid) and x.grantor = any (reach.oids) and x.grantor <> x.grantee
         and x.grantee not in (select member from pg_auth_members where roleid in ('tidegate_sessions'::regrole, 'tidegate_quarantine'::regrole))
    $younger$ using p_groups, p_owner, p_before;
  end if;
end $$;

-- What of others hangs on what the session left with its heir: it would run its code, or what is left of it.
create function tidegate._hanging(p_heir text) returns table (what text, found bigint, items text[], harmless boolean)
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin return query
  with heir (oid) as (select oid from pg_roles where rolname = p_heir),
  left_here (classid, objid) as (
    select s.classid, s.objid from pg_shdepend s join heir on heir.oid = s.refobjid
     where s.refclassid = 'pg_authid'::regclass and s.deptype = 'o'
       and s.dbid = (select oid from pg_database where datname = current_database())
    union all
    select 'pg_type'::regclass, unnest(array[c.reltype, (select typarray from pg_type where oid = c.reltype)])
      from pg_class c join heir on heir.oid = c.relowner
  ), hanging as (
    select distinct d.classid, d.objid
      from left_here l join pg_depend d on d.refclassid = l.classid and d.refobjid = l.objid, lateral (
           select case d.classid
             when 'pg_class'::regclass then coalesce((select indrelid from pg_index where indexrelid = d.objid), d.objid)
             when 'pg_attrdef'::regclass then (select adrelid from pg_attrdef where oid = d.objid)
             when 'pg_policy'::regclass then (select polrelid from pg_policy where oid = d.objid)
             when 'pg_rewrite'::regclass then (select ev_class from pg_rewrite where oid = d.objid)
             when 'pg_constraint'::regclass then (select conrelid from pg_constraint where oid = d.objid and contype <> 'f')
             when 'pg_trigger'::regclass then (select tgrelid from pg_trigger where oid = d.objid and not tgisinternal)
           end) part (relation) join pg_class r on r.oid = part.relation
     where r.relowner <> (select oid from heir)
  )
  select 'on tables of others: uses what the session left', count(*), array_agg(pg_describe_object(classid, objid, 0)), false
    from hanging where classid <> 'pg_trigger'::regclass or exists (select from pg_trigger where oid = objid and tgqual is not null)
  union all
  select 'on tables of others: triggers without effect', count(*), array_agg(pg_describe_object(classid, objid, 0)), true
    from hanging where classid = 'pg_trigger'::regclass and exists (select from pg_trigger where oid = objid and tgqual is null)
  union all
  select 'children of tables of others', count(*), array_agg(format('%s of %s', inhrelid::regclass, inhparent::regclass)), false
    from pg_inherits join pg_class c on c.oid = inhrelid join pg_class p on p.oid = inhparent, heir
   where c.relowner = heir.oid and p.relowner <> heir.oid
  union all
  select 'left with the heir: code that could not be taken off', count(*), array_agg(c.name), false
    from heir, tidegate._calling(heir.oid) c
  union all
  select 'schemas that come first for the role of their name', count(*), array_agg(nspname::text), false
    from pg_namespace join heir on heir.oid = nspowner where nspname in (select rolname from pg_roles);
end $$;

-- What the target knows of the role now, by OID: names can come back. "clean" says whether the line may be more than zero.
-- p_groups and p_owner are the roles that the session could become; p_before is what mint saw of them.
create function tidegate.inspect(p_name text, p_oid oid, p_groups text[], p_owner text, p_minted timestamptz, p_before jsonb)
returns table (what text, found bigint, items text[], harmless boolean)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  if pg_is_in_recovery() then
    raise exception 'this server is a standby: it cannot say what is left' using errcode = 'TG002';
  end if;
  return query
    select 'pg_roles', count(*), array_agg(rolname::text), false from pg_roles where oid = p_oid
    union all select 'pg_shdepend', count(*), null, false from pg_shdepend
      where refclassid = 'pg_authid'::regclass and refobjid = p_oid
    union all select 'pg_stat_activity', count(*), array_agg('pid ' || pid), false from pg_stat_activity where usesysid = p_oid
    union all select 'pg_auth_members', count(*), null, false from pg_auth_members where p_oid in (roleid, member, grantor)
    union all select 'pg_db_role_setting', count(*), null, false from pg_db_role_setting where setrole = p_oid
    union all select 'pg_prepared_xacts', count(*), array_agg(gid), false from pg_prepared_xact() where ownerid = p_oid;
  return query
    select 'prepared transactions of roles that it could become', count(*),
           array_agg(format('%s of %s in database %s', gid, owner, database)), false
      from tidegate.prepared(p_groups, p_owner, p_minted);
  return query
    select case when k.own and c.fine then 'done as the owner: default privileges'
                when k.own then 'changed while it lived: default privileges'
                else 'changed while it lived: ' || b.key end,
           count(*), array_agg(left(change, 300)), k.own and c.fine
      from jsonb_each(p_before) b, jsonb_each(tidegate._witness(p_groups, p_owner)) a,
           lateral (select b.key = 'default privileges of the owner') k (own),
           lateral (select '+ ' || v, v !~ '^OPEN |^[0-9]+ lines, digest ' from jsonb_array_elements_text(a.value) v where not b.value ? v
                    union all select '- ' || v, v !~ '^[0-9]+ lines, digest '
                      from jsonb_array_elements_text(b.value) v where not a.value ? v) c (change, fine)
     where a.key = b.key and b.key <> 'transaction' group by 1, 4;
  return query select * from tidegate._younger(p_groups, p_owner, p_before);
  return query select * from tidegate._hanging('tgq_' || substr(p_name, 4));
  return query
    select 'heir', count(*), array_agg(format('%s owns %s objects, kept for a human', r.rolname, (select count(*) from pg_shdepend
             where refclassid = 'pg_authid'::regclass and refobjid = r.oid and deptype = 'o'))), true
      from pg_roles r join pg_auth_members m on m.member = r.oid
     where r.rolname = 'tgq_' || substr(p_name, 4) and m.roleid = 'tidegate_quarantine'::regrole;
  return query
    select 'server', 0::bigint, array[tidegate.server(), 'LSN ' || pg_current_wal_lsn()], true;
end $$;
