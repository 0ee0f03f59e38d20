package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"os/user"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/dynalock/dynalock/web"
)

func (c *cli) webCommand() *cobra.Command {
	var listen string
	var values, actions bool
	cmd := &cobra.Command{
		Use: "web", Short: "Serve the page that shows locks, sessions, elections and pools", Args: cobra.NoArgs,
		Long: `web serves the page to browsers of this machine until it is interrupted, and prints its address.
Whoever reaches it sees the names of all locks and processes.
It reads while somebody looks, and writes nothing without --actions.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return c.web(ctx, listen, values, actions)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:8430", "the address to serve at; port 0 takes a free one")
	cmd.Flags().BoolVar(&values, "values", false, "show what keys keep, too")
	cmd.Flags().BoolVar(&actions, "actions", false,
		"let whoever looks break locks, end terms and pause partitions: for addresses of this machine only")
	return cmd
}

func (c *cli) web(ctx context.Context, address string, values, actions bool) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return usage(fmt.Errorf("web: --listen %q: %w", address, err))
	}
	defer func() { _ = listener.Close() }()
	local := listener.Addr().(*net.TCPAddr).IP.IsLoopback() //nolint:forcetypeassert // of a TCP listener
	if actions && !local {
		return usage(fmt.Errorf(
			"web: --actions at %q: want an address of this machine only, such as 127.0.0.1:8430", address))
	}
	var options []web.Option
	if values {
		options = append(options, web.WithValues())
	}
	if actions {
		options = append(options, web.WithActions(func(*http.Request, web.Action) (string, error) { return userName(), nil }))
	}
	s, err := c.open(ctx)
	if err != nil {
		return err
	}
	if !local {
		_, _ = fmt.Fprintf(c.err, "dynalock: whoever reaches %s sees the names of all locks and processes\n", address)
	}
	handler := web.Handler(s.Client, options...)
	if local {
		handler = onlyByAddress(handler)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	_, _ = fmt.Fprintf(c.out, "http://%s/\n", listener.Addr())
	stopped := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stopped()
	err = server.Serve(listener)
	if errors.Is(err, http.ErrServerClosed) {
		err = nil // interrupted, as it is meant to end
	}
	return errors.Join(err, s.Close(context.WithoutCancel(ctx)))
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
