package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"os/user"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/dynalock/dynalock/web"
)

// page is what the command serves, and to whom.
type page struct {
	address          string
	values, actions  bool
	authFile, header string
}

func (c *cli) webCommand() *cobra.Command {
	var p page
	cmd := &cobra.Command{
		Use: "web", Short: "Serve the page that shows locks, sessions, elections and pools", Args: cobra.NoArgs,
		Long: `web serves the page until it is interrupted, and prints its address.
Whoever reaches it sees the names of all locks and processes. So it is for browsers of this machine, by an address
with a secret in it, unless --auth-file or --user-header says who looks.
It reads while somebody looks, and writes nothing without --actions.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return c.web(ctx, &p)
		},
	}
	f := cmd.Flags()
	f.StringVar(&p.address, "listen", "127.0.0.1:8430", "the address to serve at; port 0 takes a free one")
	f.BoolVar(&p.values, "values", false, "show what keys keep, too")
	f.BoolVar(&p.actions, "actions", false, "let whoever looks break locks, end terms and pause partitions")
	f.StringVar(&p.authFile, "auth-file", "", "ask for one of the lines USER:PASSWORD of this `file`")
	f.StringVar(&p.header, "user-header", "",
		"serve only requests in which this `header` says who looks: a proxy sets it, and lets nobody else")
	return cmd
}

func (c *cli) web(ctx context.Context, p *page) error {
	users, err := p.users()
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", p.address)
	if err != nil {
		return usage(fmt.Errorf("web: --listen %q: %w", p.address, err))
	}
	defer func() { _ = listener.Close() }()
	local := listener.Addr().(*net.TCPAddr).IP.IsLoopback() //nolint:forcetypeassert // of a TCP listener
	if !local && p.authFile == "" && p.header == "" {
		return usage(fmt.Errorf("web: --listen %q: want an address of this machine only, such as 127.0.0.1:8430, "+
			"or --auth-file, or --user-header", p.address))
	}
	var options []web.Option
	if p.values {
		options = append(options, web.WithValues())
	}
	if p.actions {
		options = append(options, web.WithActions(func(r *http.Request, _ web.Action) (string, error) {
			return p.looks(r), nil
		}))
	}
	s, err := c.open(ctx)
	if err != nil {
		return err
	}
	handler, path := p.guard(web.Handler(s.Client, options...), users)
	if local {
		handler = onlyByAddress(handler)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	_, _ = fmt.Fprintf(c.out, "http://%s%s\n", listener.Addr(), path)
	stopped := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stopped()
	err = server.Serve(listener)
	if errors.Is(err, http.ErrServerClosed) {
		err = nil // interrupted, as it is meant to end
	}
	return errors.Join(err, s.Close(context.WithoutCancel(ctx)))
}

// users reads the file of passwords, nil: there is none.
func (p *page) users() (map[string]string, error) {
	if p.authFile == "" {
		return nil, nil
	}
	if p.header != "" {
		return nil, usage(errors.New("web: --auth-file and --user-header: want one of them"))
	}
	text, err := os.ReadFile(p.authFile)
	if err != nil {
		return nil, usage(fmt.Errorf("web: --auth-file: %w", err))
	}
	users := map[string]string{}
	for n, line := range strings.Split(strings.TrimRight(string(text), "\n"), "\n") {
		user, password, _ := strings.Cut(strings.TrimSuffix(line, "\r"), ":")
		if user == "" || password == "" {
			return nil, usage(fmt.Errorf("web: --auth-file %s: line %d: want USER:PASSWORD", p.authFile, n+1))
		}
		users[user] = password
	}
	return users, nil
}

// guard lets through who may look, and returns the page's path.
func (p *page) guard(next http.Handler, users map[string]string) (guarded http.Handler, path string) {
	if users == nil && p.header == "" {
		path = "/" + rand.Text()
		mux := http.NewServeMux()
		mux.Handle(path+"/", http.StripPrefix(path, next))
		return mux, path + "/"
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, given := r.BasicAuth()
		switch {
		case p.header != "" && r.Header.Get(p.header) == "":
			http.Error(w, "the proxy did not say who looks", http.StatusForbidden)
		case p.header == "" && (!given || !isPassword(users[user], password)):
			w.Header().Set("WWW-Authenticate", `Basic realm="dynalock", charset="UTF-8"`)
			http.Error(w, "want a user and a password", http.StatusUnauthorized)
		default:
			next.ServeHTTP(w, r)
		}
	}), "/"
}

// isPassword compares without telling by its time where they differ. Nobody has the
// password "".
func isPassword(want, given string) bool {
	a, b := sha256.Sum256([]byte(want)), sha256.Sum256([]byte(given))
	return want != "" && subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// looks says who makes a request that was let through.
func (p *page) looks(r *http.Request) string {
	if p.header != "" {
		return r.Header.Get(p.header)
	}
	if user, _, ok := r.BasicAuth(); ok && p.authFile != "" {
		return user
	}
	return userName()
}

// onlyByAddress refuses requests for other hosts than this machine: a page of
// elsewhere could have given its own name the address 127.0.0.1.
func onlyByAddress(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			http.Error(w, "ask for localhost or 127.0.0.1", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// userName is for the log of what was done on the page.
func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprint("uid ", os.Getuid())
}
