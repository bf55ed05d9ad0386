-- What the target knows of the role now, by OID: names can come back. "clean" says whether the line may be more than zero.
-- p_groups are the roles that the session could become; p_before is what mint saw of them.
create function tidegate.inspect(p_name text, p_oid oid, p_groups text[], p_minted timestamptz, p_before jsonb)
returns table (what text, found bigint, items text[], harmless boolean)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
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
    with recursive reach (oid) as (
      select oid from pg_roles where rolname = any (p_groups)
      union select m.roleid from pg_auth_members m join reach on m.member = reach.oid)
    select 'prepared transactions of roles that it could become', count(*), array_agg(x.gid), false
      from pg_prepared_xact() x join reach on reach.oid = x.ownerid where x.prepared >= p_minted;
  return query
    select 'changed while it lived: ' || b.key, count(*), array_agg(left(change, 300)), false
      from jsonb_each(p_before) b, jsonb_each(tidegate._witness(p_groups)) a,
           lateral (select '+ ' || v from jsonb_array_elements_text(a.value) v where not b.value ? v
                    union all select '- ' || v from jsonb_array_elements_text(b.value) v where not a.value ? v) c (change)
     where a.key = b.key group by b.key;
  return query
    select 'heir', count(*), array_agg(format('%s owns %s objects, kept for a human', r.rolname, (select count(*) from pg_shdepend
             where refclassid = 'pg_authid'::regclass and refobjid = r.oid and deptype = 'o'))), true
      from pg_roles r join pg_auth_members m on m.member = r.oid
     where r.rolname = 'tgq_' || substr(p_name, 4) and m.roleid = 'tidegate_quarantine'::regrole;
  return query
    select 'server', 0::bigint, array[
      'system identifier ' || (select system_identifier from pg_control_system()),
      'timeline ' || (select timeline_id from pg_control_checkpoint()),
      'LSN ' || pg_current_wal_lsn()], true;
end $$;
