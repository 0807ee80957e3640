// A client of the REST registry as a stranger would write it: Node's own http and nothing
// else. It goes through every exchange and prints "ok", or fails.
import http from 'node:http';
import assert from 'node:assert/strict';

const [base, username, apiKey] = process.argv.slice(2);
const agent = new http.Agent({ keepAlive: true });
let token, tenant;

function request(method, path, body, headers = {}) {
  return new Promise((resolve, reject) => {
    // The path goes out as it is: a URL object would clean it.
    const { hostname, port } = new URL(base);
    const req = http.request({ hostname, port, method, path, agent, headers: { 'Content-Type': 'application/json', ...headers } }, res => {
      let text = '';
      res.setEncoding('utf8');
      res.on('data', d => { text += d; });
      res.on('end', () => {
        assert.equal(res.headers['transfer-encoding'], undefined, 'an answer in pieces');
        assert.ok(res.headers['x-response-id'], 'no transaction');
        let parsed;
        if (text) {
          assert.equal(Number(res.headers['content-length']), Buffer.byteLength(text));
          parsed = JSON.parse(text);
        }
        resolve({ status: res.statusCode, headers: res.headers, body: parsed });
      });
    });
    req.on('error', reject);
    if (body !== undefined) req.write(JSON.stringify(body));
    req.end();
  });
}
const api = (method, path, body) => request(method, `/v1.0/${tenant}${path}`, body, { 'X-Auth-Token': token });
async function expect(status, method, path, body) {
  const res = await api(method, path, body);
  assert.equal(res.status, status, `${method} ${path}: ${res.status} ${JSON.stringify(res.body)}`);
  return res;
}

// Without a token as the old client sends it after a failure: 401, so that it logs in.
tenant = 'undefined'; token = 'null';
assert.equal((await api('GET', '/services')).body.type, 'unauthorizedError');

let res = await request('POST', '/v2.0/tokens', { auth: { 'RAX-KSKEY:apiKeyCredentials': { username, apiKey } } });
assert.equal(res.status, 200);
token = res.body.access.token.id;
tenant = res.body.access.serviceCatalog.find(s => s.name === 'cloudServers').endpoints[0].tenantId;
assert.match(tenant, /^\d+$/);
assert.match(res.body.access.token.expires, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000-0\d:00$/);

const limits = (await expect(200, 'GET', '/limits')).body;
assert.equal(limits.resource.service, 200);
assert.equal(limits.rate['/.*'].limit, 500000);

// Services.
const service = { id: 'dfw1-db1', tags: ['db', 'mysql'], metadata: { region: 'dfw', port: '3306' }, heartbeat_timeout: 30 };
res = await expect(201, 'POST', '/services', service);
assert.equal(res.headers.location.split('/')[6], 'dfw1-db1');
let beat = res.body.token;
assert.equal((await expect(400, 'POST', '/services', service)).body.type, 'serviceWithThisIdExists');
assert.equal((await expect(200, 'GET', '/services/dfw1-db1')).body.last_seen, null);
const before = Date.now();
res = await expect(200, 'POST', '/services/dfw1-db1/heartbeat', { token: beat });
assert.equal(res.body.token.length, 36);
await expect(404, 'POST', '/services/dfw1-db1/heartbeat', { token: beat });
beat = res.body.token;
await expect(200, 'POST', '/services/dfw1-db1/heartbeat', { token: beat });
assert.ok((await expect(200, 'GET', '/services/dfw1-db1')).body.last_seen >= before);
await expect(404, 'POST', '/services/nobody/heartbeat', { token: beat });
await expect(201, 'POST', '/services', { id: 'dfw1-api', heartbeat_timeout: 30 });
res = await expect(200, 'GET', '/services?limit=1');
assert.deepEqual(res.body.values.map(s => s.id), ['dfw1-api']);
assert.equal(res.body.metadata.next_marker, 'dfw1-db1');
res = await expect(200, 'GET', `/services?marker=${res.body.metadata.next_marker}`);
assert.deepEqual(res.body.values.map(s => s.id), ['dfw1-db1']);
res = await expect(200, 'GET', '/services?tag=mysql');
assert.equal(res.body.metadata.count, 1);
assert.ok((await expect(204, 'PUT', '/services/dfw1-db1', { heartbeat_timeout: 60 })).headers.location.endsWith('/dfw1-db1'));
assert.equal((await expect(200, 'GET', '/services/dfw1-db1')).body.heartbeat_timeout, 60);
await expect(204, 'DELETE', '/services/dfw1-db1');
assert.equal((await expect(404, 'GET', '/services/dfw1-db1')).body.details, 'Object "Service" with key "dfw1-db1" does not exist');
const races = await Promise.all(Array.from({ length: 10 }, () => api('POST', '/services', { id: 'race', heartbeat_timeout: 3 })));
assert.equal(races.filter(r => r.status === 201).length, 1);

// Configuration.
await expect(204, 'PUT', '/configuration/configId', { value: 'test value 123456' });
await expect(204, 'PUT', '/configuration/configId', { value: 'test value 123456' });
await expect(204, 'PUT', '/configuration//api/key-1', { value: 'one' });
await expect(204, 'PUT', '/configuration//api/key-2', { value: 'two' });
assert.deepEqual((await expect(200, 'GET', '/configuration/configId')).body, { id: 'configId', value: 'test value 123456' });
res = await expect(200, 'GET', '/configuration/api/');
assert.deepEqual(res.body.values, [{ id: '/api/key-1', value: 'one' }, { id: '/api/key-2', value: 'two' }]);
await expect(204, 'DELETE', '/configuration//api/key-1');
await expect(404, 'GET', '/configuration//api/key-1');
assert.equal((await expect(400, 'GET', '/configuration/%80')).body.message, 'URI malformed');

// Events: the service with the short timeout ends by itself, at its deadline.
const deadline = Date.now() + 15000;
let events;
do {
  events = (await expect(200, 'GET', '/events')).body.values;
} while (!events.some(e => e.type === 'service.timeout') && Date.now() < deadline && await new Promise(r => setTimeout(r, 200, true)));
assert.deepEqual(events.map(e => e.type), [
  'service.join', 'service.join', 'service.remove', 'service.join', 'configuration_value.update', 'configuration_value.update',
  'configuration_value.update', 'configuration_value.remove', 'service.timeout']);
const [join, timeout] = [events[3], events[8]];
// The deadline counts from when the service was taken up, a moment before it was told.
assert.ok(timeout.timestamp - join.timestamp > 1500 && timeout.timestamp - join.timestamp <= 3000);
assert.deepEqual(timeout.payload, { id: 'race', heartbeat_timeout: 3, tags: [], metadata: {} });
res = await expect(200, 'GET', `/events?marker=${timeout.id}`);
assert.deepEqual(res.body.values.map(e => e.id), [timeout.id]);
res = await expect(200, 'GET', '/events?type=configuration_value.remove');
assert.deepEqual(res.body.values[0].payload, { old_value: 'one', configuration_value_id: '/api/key-1' });
console.log('ok');
agent.destroy();
