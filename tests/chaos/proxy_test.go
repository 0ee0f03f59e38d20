//go:build unix

package chaos_test

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// weather is what a proxy does to what comes through.
type weather string

const (
	fair           weather = "fair"
	cut            weather = "cut"             // connections are reset, new ones too
	requestsVanish weather = "requests vanish" // a black hole towards the store, from which nothing returns
	answersVanish  weather = "answers vanish"  // requests are served, their answers go into a black hole
	// Requests land when the weather changes, long after their caller gave up.
	requestsLate weather = "requests held back"
	answersLost  weather = "half the answers cut" // instead of the answer comes the end of the connection
)

// proxy is one client's way to the store, on TCP.
type proxy struct {
	listener net.Listener
	target   string
	mu       sync.Mutex
	weather  weather
	changed  chan struct{} // closed when the weather changes
	open     map[net.Conn]bool
}

// startProxy starts a proxy to the address target, and stops it at the test's end.
func startProxy(t *testing.T, target string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{listener: listener, target: target, weather: fair, changed: make(chan struct{}), open: map[net.Conn]bool{}}
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
		p.turn(cut)
		serving.Wait()
	})
	return p
}

// turn changes the weather. What was lost cannot be gone on with: those connections end.
func (p *proxy) turn(w weather) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w == cut || p.weather == requestsVanish || p.weather == answersVanish {
		for conn := range p.open {
			reset(conn)
		}
	}
	p.weather = w
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *proxy) now() (weather, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.weather, p.changed
}

// reset ends a connection with a reset rather than politely.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // it fails if the connection is gone
	}
	_ = conn.Close()
}

// track makes turn end conn, unless the weather does not admit it at all.
func (p *proxy) track(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[conn] = true
	return p.weather != cut
}

func (p *proxy) drop(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, conn)
	reset(conn)
}

func (p *proxy) serve(client net.Conn) {
	defer p.drop(client)
	if !p.track(client) {
		return
	}
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer p.drop(server)
	if !p.track(server) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { p.copy(server, client, p.request) })
	both.Go(func() {
		p.copy(client, server, p.answer)
		p.drop(client)
	})
	both.Wait()
}

var errCut = errors.New("cut")

// copy passes on what fate lets through. A sender that is gone does not take back what it has sent.
func (p *proxy) copy(to io.Writer, from io.Reader, fate func() (pass bool, err error)) {
	for buffer := make([]byte, 64<<10); ; {
		n, err := from.Read(buffer)
		if n > 0 {
			pass, cut := fate()
			if cut != nil {
				return
			}
			if pass {
				if _, err := to.Write(buffer[:n]); err != nil {
					return
				}
			}
		}
		if err != nil {
			if tcp, ok := to.(*net.TCPConn); ok {
				_ = tcp.CloseWrite() // the other side is told that no more comes; it may be gone itself
			}
			return
		}
	}
}

func (p *proxy) request() (bool, error) {
	w, changed := p.now()
	if w == requestsLate {
		<-changed
		w, _ = p.now()
	}
	if w == cut {
		return false, errCut
	}
	return w != requestsVanish, nil
}

func (p *proxy) answer() (bool, error) {
	w, _ := p.now()
	if w == cut || w == answersLost && rand.N(2) == 0 {
		return false, errCut
	}
	return w != answersVanish, nil
}

// The proxy's own test: each weather does what its name says.
func TestProxyWeather(t *testing.T) {
	t.Parallel()
	served := make(chan struct{}, 100)
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served <- struct{}{} })}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { require.NoError(t, server.Close()) })
	p := startProxy(t, listener.Addr().String())
	client := &http.Client{Transport: &http.Transport{}, Timeout: 300 * time.Millisecond}
	t.Cleanup(client.CloseIdleConnections)
	get := func() error {
		answer, err := client.Get("http://" + p.listener.Addr().String())
		if err != nil {
			return err
		}
		return answer.Body.Close()
	}

	require.NoError(t, get())
	<-served
	for _, w := range []weather{cut, requestsVanish} {
		p.turn(w)
		require.Error(t, get(), w)
		require.Empty(t, served, w)
	}
	p.turn(answersVanish)
	require.Error(t, get())
	<-served
	p.turn(fair)
	require.Empty(t, served, "what vanished does not come back")
	require.NoError(t, get())
	<-served
	p.turn(requestsLate)
	require.Error(t, get())
	require.Empty(t, served)
	p.turn(fair)
	<-served // long after its caller gave up
	p.turn(answersLost)
	require.Eventually(t, func() bool { return get() != nil && len(served) > 0 }, 10*time.Second, time.Millisecond)
}
