package tests_test

import (
	"bytes"
	"database/sql"
	"encoding/binary"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// wireFault is what becomes of one request and its connection.
type wireFault string

const (
	cutBefore  wireFault = "cut before"  // the request does not arrive, the connection is reset
	cutAfter   wireFault = "cut after"   // the request is served, and instead of its answer comes a reset
	holeBefore wireFault = "hole before" // the request does not arrive, and nothing ever comes back
	holeAfter  wireFault = "hole after"  // the request is served, and nothing ever comes back
	heldBack   wireFault = "held back"   // the request arrives when the proxy lets it go
)

// pgProxy is the way to a server, on which requests that write meet faults.
// Clients must send each statement as one message with its text (pgx:
// default_query_exec_mode=exec).
type pgProxy struct {
	listener net.Listener
	target   string
	letGo    chan struct{} // closed to deliver what is held back

	mu    sync.Mutex
	fault func(request int) wireFault // of the n-th request, from 0; "": none
	reads bool                        // faults are of reads, not of writes
	seen  int
	open  []net.Conn
}

func startPgProxy(t *testing.T, target string) *pgProxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &pgProxy{listener: listener, target: target, letGo: make(chan struct{})}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { p.serve(client) })
		}
	})
	t.Cleanup(func() {
		require.NoError(t, listener.Close())
		p.mu.Lock()
		for _, conn := range p.open {
			resetConn(conn)
		}
		p.mu.Unlock()
		serving.Wait()
	})
	return p
}

// inject sets the faults of the writes from now on.
func (p *pgProxy) inject(fault func(request int) wireFault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault, p.reads, p.seen = fault, false, 0
}

// injectReads sets the faults of the reads of pairs from now on.
func (p *pgProxy) injectReads(fault func(request int) wireFault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault, p.reads, p.seen = fault, true, 0
}

// next counts a request of the kind that faults are of, and returns its fault.
func (p *pgProxy) next(request []byte) wireFault {
	writes := bytes.Contains(request, []byte("INSERT INTO")) || bytes.Contains(request, []byte("UPDATE"))
	p.mu.Lock()
	fault, n := p.fault, p.seen
	meant := writes
	if p.reads {
		meant = !writes && bytes.Contains(request, []byte("t.version"))
	}
	if meant {
		p.seen++
	}
	p.mu.Unlock()
	if !meant || fault == nil {
		return ""
	}
	return fault(n)
}

// meant returns how many requests of that kind there were.
func (p *pgProxy) meant() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen
}

func (p *pgProxy) track(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = append(p.open, conns...)
}

// resetConn ends a connection with a reset rather than politely.
func resetConn(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // it fails if the connection is gone
	}
	_ = conn.Close()
}

func (p *pgProxy) serve(client net.Conn) {
	defer resetConn(client)
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	p.track(client, server)
	fate := make(chan wireFault, 1)
	var answers sync.WaitGroup
	answers.Go(func() { p.answers(client, server, fate) })
	p.requests(server, client, fate)
	answers.Wait()
}

// requests passes requests on, and tells the other direction of a fault.
func (p *pgProxy) requests(server, client net.Conn, fate chan<- wireFault) {
	for buffer := make([]byte, 1<<20); ; {
		n, err := client.Read(buffer)
		if err != nil {
			_ = server.(*net.TCPConn).CloseWrite() // it is served to its end all the same
			return
		}
		if isCancel(buffer[:n]) {
			resetConn(client)
			resetConn(server)
			return
		}
		switch fault := p.next(buffer[:n]); fault {
		case cutBefore:
			resetConn(client)
			resetConn(server)
			return
		case holeBefore:
			continue
		case heldBack:
			<-p.letGo
		case cutAfter, holeAfter:
			fate <- fault
		}
		if _, err := server.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// isCancel reports that a request asks to cancel the statement of another
// connection, as pgx does when its context ends. On this way none arrives, or a
// statement that is held back would be let go beside what cancels it.
func isCancel(request []byte) bool {
	const code = 80877102 // PostgreSQL's documentation, "Message Formats", CancelRequest
	return len(request) == 16 && binary.BigEndian.Uint32(request[4:]) == code
}

// answers passes answers on, until one is not to arrive.
func (p *pgProxy) answers(client, server net.Conn, fate <-chan wireFault) {
	lost := false
	for buffer := make([]byte, 1<<20); ; {
		n, err := server.Read(buffer)
		select {
		case fault := <-fate:
			if fault == cutAfter && err == nil { // the answer is there, so the statement is over
				resetConn(client)
			}
			lost = true
		default:
		}
		if err != nil {
			resetConn(server)
			resetConn(client)
			return
		}
		if !lost {
			if _, err := client.Write(buffer[:n]); err != nil {
				lost = true
			}
		}
	}
}

// settled waits until the server has served, and left, the connections that came through the proxy.
func (p *pgProxy) settled(t *testing.T, db *sql.DB) {
	t.Helper()
	p.mu.Lock()
	var ports []int
	for i := 1; i < len(p.open); i += 2 { // those to the server
		ports = append(ports, p.open[i].LocalAddr().(*net.TCPAddr).Port)
	}
	p.mu.Unlock()
	require.Eventually(t, func() bool {
		var n int
		require.NoError(t, db.QueryRowContext(t.Context(),
			"SELECT count(*) FROM pg_stat_activity WHERE client_port = ANY($1::int[])", ports).Scan(&n))
		return n == 0
	}, 30*time.Second, 10*time.Millisecond)
}
