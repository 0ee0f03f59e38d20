package certmagicstorage_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/stretchr/testify/require"
)

// fakeCA signs what it is sent, one after the other as it is told.
type fakeCA struct {
	t      *testing.T
	key    *ecdsa.PrivateKey
	root   *x509.Certificate
	server *httptest.Server
	// arrived is sent the name of each process that asks. The answer waits for a
	// lifetime from answers, or for the end of the process.
	arrived chan string
	answers chan lifetime

	mu       sync.Mutex
	underway int
	issued   []*big.Int
}

// lifetime is when a certificate begins and ends, from now.
type lifetime struct{ from, to time.Duration }

const day = 24 * time.Hour

func newFakeCA(t *testing.T) *fakeCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "fake CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-365 * day), NotAfter: time.Now().Add(365 * day),
	}
	ca := &fakeCA{t: t, key: key, root: root, arrived: make(chan string), answers: make(chan lifetime)}
	ca.server = httptest.NewServer(ca)
	t.Cleanup(ca.server.Close)
	return ca
}

func (ca *fakeCA) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ca.begin()
	defer ca.end()
	request, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	select {
	case ca.arrived <- r.Header.Get("Process"):
	case <-r.Context().Done():
		return
	}
	select {
	case l := <-ca.answers:
		certificate, err := ca.sign(request, l)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_, _ = w.Write(certificate)
	case <-r.Context().Done():
	}
}

func (ca *fakeCA) begin() {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if ca.underway++; ca.underway > 1 {
		ca.t.Error("two processes ask at the same time")
	}
}

func (ca *fakeCA) end() {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.underway--
}

func (ca *fakeCA) sign(request []byte, l lifetime) ([]byte, error) {
	csr, err := x509.ParseCertificateRequest(request)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, err
	}
	leaf := &x509.Certificate{
		SerialNumber: serial, DNSNames: csr.DNSNames,
		NotBefore: time.Now().Add(l.from), NotAfter: time.Now().Add(l.to),
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca.root, csr.PublicKey, ca.key)
	if err != nil {
		return nil, err
	}
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.issued = append(ca.issued, serial)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// serials returns those of the certificates issued so far.
func (ca *fakeCA) serials() []string {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	var serials []string
	for _, s := range ca.issued {
		serials = append(serials, s.String())
	}
	return serials
}

// issuer is a process's way to the fake CA.
type issuer struct{ url, process string }

var _ certmagic.Issuer = issuer{}

func (i issuer) IssuerKey() string { return "fake" }

func (i issuer) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, i.url, bytes.NewReader(csr.Raw))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Process", i.process)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(answer.Body)
	if err = errors.Join(err, answer.Body.Close()); err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the CA says %s: %s", answer.Status, text)
	}
	return &certmagic.IssuedCertificate{Certificate: text}, nil
}
