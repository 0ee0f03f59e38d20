package certmagicstorage_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	_ "modernc.org/sqlite"

	"github.com/dynalock/dynalock/adapters/certmagic"
	"github.com/dynalock/dynalock/internal/proctest"
	"github.com/dynalock/dynalock/kv/sqlkv"
	"github.com/dynalock/dynalock/lease"
)

const (
	domain = "www.example.test"
	// patience is for a busy machine. A lock of a dead process passes on in five
	// seconds.
	patience = 2 * time.Minute
)

// Variables that make this test's program a process of the fleet.
const (
	processVariable = "CERTMAGIC_TEST_PROCESS"
	fileVariable    = "CERTMAGIC_TEST_FILE"
	caVariable      = "CERTMAGIC_TEST_CA"
)

func TestMain(m *testing.M) {
	if name := os.Getenv(processVariable); name != "" {
		if err := serve(name); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serve does what it reads, "obtain" or "renew", and says the serial number of the
// certificate that is stored then.
func serve(name string) (err error) {
	ctx := context.Background()
	db, err := sql.Open("sqlite", os.Getenv(fileVariable))
	if err != nil {
		return err
	}
	store, err := sqlkv.Open(ctx, db)
	if err != nil {
		return err
	}
	client, err := lease.New(store, lease.WithTTL(lease.MinTTL), lease.WithOwner(name))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close(ctx)) }()
	storage, err := certmagicstorage.New(store, client)
	if err != nil {
		return err
	}
	var config *certmagic.Config
	cache := certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return config, nil },
		Logger:           zap.NewNop(),
	})
	defer cache.Stop()
	config = certmagic.New(cache, certmagic.Config{
		Storage: storage, Issuers: []certmagic.Issuer{issuer{os.Getenv(caVariable), name}}, DisableARI: true,
		OCSP: certmagic.OCSPConfig{DisableStapling: true}, Logger: zap.NewNop(),
	})
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		switch lines.Text() {
		case "obtain":
			err = config.ObtainCertSync(ctx, domain)
		case "renew":
			err = config.RenewCertSync(ctx, domain, false)
		}
		if err != nil {
			return err
		}
		certificate, err := config.CacheManagedCertificate(ctx, domain)
		if err != nil {
			return err
		}
		fmt.Println(certificate.Leaf.SerialNumber)
	}
	return nil
}

type process struct {
	cmd   *exec.Cmd
	in    io.Writer
	lines chan string
}

type fleet struct {
	t         *testing.T
	ca        *fakeCA
	file      string
	processes map[string]*process
}

func (f *fleet) start(name string) {
	f.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), processVariable+"="+name, fileVariable+"="+f.file, caVariable+"="+f.ca.server.URL)
	in, err := cmd.StdinPipe()
	require.NoError(f.t, err)
	out, _, err := proctest.Pipe(f.t, cmd, name)
	require.NoError(f.t, err)
	require.NoError(f.t, cmd.Start())
	p := &process{cmd: cmd, in: in, lines: make(chan string, 10)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.lines <- lines.Text()
		}
	}()
	f.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-read
		_ = cmd.Wait()
	})
	f.processes[name] = p
}

func (f *fleet) tell(what string) {
	f.t.Helper()
	for _, p := range f.processes {
		_, err := fmt.Fprintln(p.in, what)
		require.NoError(f.t, err)
	}
}

// kill ends the process that is asking the CA, in the middle of it.
func (f *fleet) kill() {
	f.t.Helper()
	name := receive(f.t, f.ca.arrived)
	require.Contains(f.t, f.processes, name)
	require.NoError(f.t, f.processes[name].cmd.Process.Kill())
	delete(f.processes, name)
}

// answer lets the CA answer who asks next.
func (f *fleet) answer(l lifetime) {
	f.t.Helper()
	require.Contains(f.t, f.processes, receive(f.t, f.ca.arrived))
	f.ca.answers <- l
}

// requireAllSay requires that all processes have the newest certificate.
func (f *fleet) requireAllSay(issued int) {
	f.t.Helper()
	for _, name := range slices.Sorted(maps.Keys(f.processes)) {
		serial := receive(f.t, f.processes[name].lines)
		require.Len(f.t, f.ca.serials(), issued)
		require.Equal(f.t, f.ca.serials()[issued-1], serial, name)
	}
}

func receive(t *testing.T, from <-chan string) string {
	t.Helper()
	select {
	case s := <-from:
		return s
	case <-time.After(patience):
		require.Fail(t, "nothing came")
		return ""
	}
}

func TestAFleetObtainsAndRenewsWhilePartsOfItDie(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("kills processes: left out by -short")
	}
	f := &fleet{
		t: t, ca: newFakeCA(t), file: filepath.Join(t.TempDir(), "certificates.db"), processes: map[string]*process{},
	}
	due, fresh := lifetime{-80 * day, 10 * day}, lifetime{-day, 89 * day} // a third before the end it is renewed

	f.start("a")
	f.start("b")
	f.tell("obtain")
	f.kill()
	f.answer(due)
	f.requireAllSay(1)

	f.start("c")
	f.tell("renew")
	f.kill()
	f.answer(fresh)
	f.requireAllSay(2)

	f.start("d")
	f.tell("renew")
	f.requireAllSay(2)
	f.tell("obtain")
	f.requireAllSay(2)
}
