// node-postgres through the gate. Who and where is in the environment.
'use strict'
const assert = require('node:assert')
const { once } = require('node:events')
const fs = require('node:fs')
const { Client, Pool } = require('pg')

const ssl = { ca: fs.readFileSync(process.env.PGSSLROOTCERT), rejectUnauthorized: true }

async function pooled() {
  const pool = new Pool({ ssl, max: 4 })
  const numbers = await Promise.all(Array.from({ length: 60 }, (_, n) => pool.query('select $1::int * 2 as n', [n])))
  assert.deepStrictEqual(numbers.map((result) => result.rows[0].n), Array.from({ length: 60 }, (_, n) => 2 * n))
  const client = await pool.connect()
  await client.query('begin')
  await client.query('delete from items')
  await client.query('rollback')
  client.release()
  assert.strictEqual((await pool.query('select count(*)::int as n from items')).rows[0].n, 100)
  await pool.end()
}

async function alone() {
  const client = new Client({ ssl })
  await client.connect()
  for (const id of [1, 50, 100]) {
    const result = await client.query({ name: 'by-id', text: 'select name from items where id = $1', values: [id] })
    assert.strictEqual(result.rows[0].name, `item ${id}`)
  }
  const values = [7, "it's ☃", Buffer.from([0, 255]), new Date('2026-11-22T06:00:00Z'), ['a', null], { a: [1] }, null]
  const types = ['int', 'text', 'bytea', 'timestamptz', 'text[]', 'jsonb', 'text']
  const marks = types.map((type, n) => `$${n + 1}::${type} as c${n}`).join(', ')
  const row = (await client.query(`select ${marks}`, values)).rows[0]
  assert.deepStrictEqual(Object.values(row), values)
  const both = await client.query('select 1 as a; select 2 as b')
  assert.deepStrictEqual(both.map((result) => result.rows[0]), [{ a: 1 }, { b: 2 }])
  await assert.rejects(client.query('select 1 / 0'), { code: '22012' })
  const heard = once(client, 'notification')
  await client.query('listen jobs')
  await client.query("notify jobs, 'done'")
  assert.strictEqual((await heard)[0].payload, 'done')
  const noticed = once(client, 'notice')
  await client.query("do $$ begin raise notice 'look out'; end $$")
  assert.strictEqual((await noticed)[0].message, 'look out')
  await client.query("set statement_timeout = '200ms'")
  await assert.rejects(client.query('select pg_sleep(300)'), { code: '57014' })
  await client.end()
}

pooled().then(alone).catch((error) => {
  console.error(error)
  process.exitCode = 1
})
