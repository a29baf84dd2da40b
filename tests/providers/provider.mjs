// A real OpenID provider (npm's oidc-provider), for tests/it/providers.rs: prints the port that it listens on.
// A resource is named https://orders.test/ALGORITHM, and its access tokens are signed with that algorithm. Those of
// https://orders.test/opaque are opaque.
import { generateKeyPairSync } from 'node:crypto'
import { createServer } from 'node:http'
import { Provider } from 'oidc-provider'

const key = (alg, kind, options) => {
  const { privateKey } = generateKeyPairSync(kind, options)
  return { ...privateKey.export({ format: 'jwk' }), alg, kid: alg.toLowerCase(), use: 'sig' }
}
const keys = [
  key('RS256', 'rsa', { modulusLength: 2048 }),
  key('RS512', 'rsa', { modulusLength: 2048 }),
  key('PS256', 'rsa', { modulusLength: 2048 }),
  key('PS384', 'rsa', { modulusLength: 2048 }),
  key('ES256', 'ec', { namedCurve: 'P-256' }),
  key('ES384', 'ec', { namedCurve: 'P-384' }),
  key('ES512', 'ec', { namedCurve: 'P-521' }),
  key('EdDSA', 'ed25519', {}),
]

const server = createServer()
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`
  const provider = new Provider(issuer, {
    clients: [{
      client_id: 'web',
      client_secret: 'the-secret-of-a-test-client',
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
    }, {
      client_id: 'gateway',
      client_secret: 'the-secret-of-the-gateway',
      grant_types: [],
      redirect_uris: [],
      response_types: [],
      introspection_signed_response_alg: 'RS256',
    }],
    jwks: { keys },
    scopes: ['read', 'write'],
    enabledJWA: { idTokenSigningAlgValues: keys.map(({ alg }) => alg) },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true, allowedPolicy: (_, client) => client.clientId === 'gateway' },
      jwtIntrospection: { enabled: true },
      revocation: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_, resource) => ({
          scope: 'read write',
          audience: resource.endsWith('/elsewhere') ? 'https://elsewhere.test' : 'https://orders.test',
          accessTokenTTL: 300,
          ...(resource.endsWith('/opaque')
            ? { accessTokenFormat: 'opaque' }
            : {
                accessTokenFormat: 'jwt',
                jwt: { sign: { alg: resource.split('/').at(-1).replace('elsewhere', 'ES256') } },
              }),
        }),
      },
    },
  })
  server.on('request', provider.callback())
  console.log(server.address().port)
})
