package telford

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
)

// tlsIdentity is what WithTLS gives.
type tlsIdentity struct {
	cert       tls.Certificate
	roots      []*x509.Certificate
	serverName string
}

// parseTLS reads the PEM of WithTLS strictly: nothing but the blocks that belong there,
// and nothing around them.
func parseTLS(cert, key, ca []byte, serverName string, bad *problems) *tlsIdentity {
	if (len(cert) == 0) != (len(key) == 0) {
		bad.addf("WithTLS: a certificate and its key come together")
		return nil
	}
	if len(cert) == 0 {
		bad.addf("WithTLS: there is no certificate")
		return nil
	}
	before := len(bad.list)
	chain := pemBlocks("WithTLS: cert", cert, bad, "CERTIFICATE")
	keys := pemBlocks("WithTLS: key", key, bad, "PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY")
	roots := pemBlocks("WithTLS: ca", ca, bad, "CERTIFICATE")
	if len(keys) > 1 {
		bad.addf("WithTLS: key: it holds %d keys, want one", len(keys))
	}
	t := &tlsIdentity{serverName: serverName}
	for i, der := range roots {
		root, err := x509.ParseCertificate(der)
		switch {
		case err != nil:
			bad.addf("WithTLS: ca: certificate %d: %v", i+1, err)
		case !root.IsCA:
			bad.addf("WithTLS: ca: certificate %d (%s) is not that of an authority", i+1, root.Subject)
		default:
			t.roots = append(t.roots, root)
		}
	}
	for i, der := range chain {
		if _, err := x509.ParseCertificate(der); err != nil {
			bad.addf("WithTLS: cert: certificate %d: %v", i+1, err)
		}
	}
	if len(bad.list) > before {
		return nil
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		bad.addf("WithTLS: %v", err)
		return nil
	}
	t.cert = pair
	return t
}

func pemBlocks(what string, text []byte, bad *problems, kinds ...string) [][]byte {
	var out [][]byte
	rest := bytes.TrimSpace(text)
	if len(rest) == 0 {
		bad.addf("%s: it is empty", what)
		return nil
	}
	for len(rest) > 0 {
		if !bytes.HasPrefix(rest, []byte("-----BEGIN ")) {
			bad.addf("%s: there is something that is not PEM", what)
			return nil
		}
		block, next := pem.Decode(rest)
		if block == nil {
			bad.addf("%s: a PEM block is damaged", what)
			return nil
		}
		known := false
		for _, k := range kinds {
			known = known || block.Type == k
		}
		if !known {
			bad.addf("%s: it holds a %q, want %q", what, block.Type, kinds[0])
			return nil
		}
		out = append(out, block.Bytes)
		rest = bytes.TrimSpace(next)
	}
	return out
}
