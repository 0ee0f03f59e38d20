package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dynalock/dynalock/adapters/dynastore"
	"github.com/dynalock/dynalock/kv"
)

func (c *cli) kvExportCommand(f *kvFlags) *cobra.Command {
	return &cobra.Command{
		Use: "export [PREFIX]", Short: "Print pairs as JSON lines, which import reads", Args: onePrefix("kv export"),
		Long: `export prints a line for each pair, while others write: it is no snapshot of all at one instant.
It takes as long as it takes, --timeout does not end it.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.untilStopped(cmd.Context(), func(ctx context.Context, s *opened) error {
				encoder := c.lines()
				for pair, err := range kv.All(ctx, s.store, strings.Join(args, "")) {
					if err != nil {
						return err
					}
					if !f.shown(pair.Key) {
						continue
					}
					if err := encoder.Encode(pairRowOf(pair)); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

const dynastoreScheme = "dynastore:"

func (c *cli) kvImportCommand(f *kvFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "import [dynastore:TABLE/PARTITION]", Short: "Write the pairs of an export, or of a table of dynastore",
		Long: `import reads the lines of an export from the standard input, or copies the pairs of a DynamoDB table
that dynastore or dynalock before version 2 have written. A key that is there already is left alone.
So an import that was broken off may be repeated. Versions are the store's own.`,
		Example: `  dynalock kv export settings/ | dynalock --store sqlite:copy.db kv import
  dynalock kv import dynastore:app/settings --text`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 || len(args) == 1 && !strings.HasPrefix(args[0], dynastoreScheme) {
				return usage(errors.New("kv import: want an export on standard input, or dynastore:TABLE/PARTITION"))
			}
			if len(args) == 1 && f.text == f.base64 {
				return usage(errors.New("kv import: want --text if values were written by WriteWithString, " +
					"--base64 if by WriteWithBytes"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.untilStopped(cmd.Context(), func(ctx context.Context, s *opened) (err error) {
				var done dynastore.Imported
				if len(args) == 1 {
					done, err = f.importTable(ctx, s.store, strings.TrimPrefix(args[0], dynastoreScheme))
				} else {
					done, err = f.importLines(ctx, s.store, c.in)
				}
				if !c.quiet {
					_, _ = fmt.Fprintf(c.err, "dynalock: %d copied, %d were there\n", done.Copied, done.Kept)
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&f.text, "text", false, "values of dynastore are text")
	cmd.Flags().BoolVar(&f.base64, "base64", false, "values of dynastore are bytes in base64")
	return cmd
}

func (f *kvFlags) importTable(ctx context.Context, store kv.Store, from string) (dynastore.Imported, error) {
	path, query, _ := strings.Cut(from, "?")
	table, partition, _ := strings.Cut(path, "/")
	if partition == "" {
		return dynastore.Imported{}, usage(fmt.Errorf("kv import: %q: want dynastore:TABLE/PARTITION", dynastoreScheme+from))
	}
	client, table, _, err := dynamoDB(ctx, table+"?"+query)
	if err != nil {
		return dynastore.Imported{}, err
	}
	old, err := dynastore.Open(client, table, partition)
	if err != nil {
		return dynastore.Imported{}, err
	}
	encoding := dynastore.Text
	if f.base64 {
		encoding = dynastore.Base64
	}
	return old.Import(ctx, store, encoding)
}

func (f *kvFlags) importLines(ctx context.Context, store kv.Store,
	from io.Reader) (done dynastore.Imported, err error) {
	decoder := json.NewDecoder(from)
	decoder.UseNumber()
	decoder.DisallowUnknownFields()
	for line := 1; ; line++ {
		var row pairRow
		switch err := decoder.Decode(&row); {
		case errors.Is(err, io.EOF):
			return done, nil
		case err != nil:
			return done, usage(fmt.Errorf("kv import: pair %d: %w", line, err))
		}
		if err := f.writable("import", row.Key); err != nil {
			return done, err
		}
		options, expired, err := row.options(time.Now())
		if err != nil {
			return done, usage(fmt.Errorf("kv import: pair %d: %w", line, err))
		}
		if expired {
			continue
		}
		_, err = store.AtomicPut(ctx, row.Key, options...)
		switch {
		case errors.Is(err, kv.ErrKeyExists):
			done.Kept++
		case err != nil:
			return done, err
		default:
			done.Copied++
		}
	}
}
