package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dynalock/dynalock/kv/dynamokv"
	"github.com/dynalock/dynalock/kv/pgkv"
)

func (c *cli) tableCommand() *cobra.Command {
	table := &cobra.Command{
		Use: "table", Short: "Make or check the table, or print the policy for it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, sub := range []struct {
		use, short string
		do         func(ctx context.Context) (name string, err error)
	}{
		{"create", "Make the table on DynamoDB or PostgreSQL if it is not there, and check it", c.createTable},
		{"check", "Check the table on DynamoDB, and change nothing", c.checkTable},
	} {
		table.AddCommand(&cobra.Command{
			Use: sub.use, Short: sub.short, Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				ctx, cancel := context.WithTimeout(cmd.Context(), max(c.timeout, 2*time.Minute))
				defer cancel()
				name, err := sub.do(ctx)
				if err != nil {
					return err
				}
				if !c.quiet {
					_, _ = fmt.Fprintf(c.err, "dynalock: table %s is fit\n", name)
				}
				return nil
			},
		})
	}
	table.AddCommand(c.policyCommand())
	return table
}

// createTable makes the store's table if it is not there, and returns its name.
func (c *cli) createTable(ctx context.Context) (name string, err error) {
	spec := c.spec()
	scheme, rest, _ := strings.Cut(spec, ":")
	switch scheme {
	case "dynamodb":
		client, name, _, err := dynamoDB(ctx, rest)
		if err != nil {
			return "", err
		}
		return name, dynamokv.EnsureTable(ctx, client, name)
	case "postgres", "postgresql":
		db, err := postgresDB(spec)
		if err != nil {
			return "", err
		}
		return "dynalock", errors.Join(pgkv.EnsureTable(ctx, db), db.Close())
	}
	return "", usage(errors.New("table create: want --store dynamodb:TABLE or postgres://USER@HOST/DATABASE"))
}

func (c *cli) checkTable(ctx context.Context) (name string, err error) {
	rest, err := c.dynamoDBOnly("check")
	if err != nil {
		return "", err
	}
	client, name, _, err := dynamoDB(ctx, rest)
	if err != nil {
		return "", err
	}
	return name, dynamokv.CheckTable(ctx, client, name)
}

// dynamoDBOnly is what follows "dynamodb:" in the name of the store.
func (c *cli) dynamoDBOnly(command string) (string, error) {
	rest, ok := strings.CutPrefix(c.spec(), "dynamodb:")
	if !ok {
		return "", usage(fmt.Errorf("table %s: want --store dynamodb:TABLE", command))
	}
	return rest, nil
}

func (c *cli) policyCommand() *cobra.Command {
	var account string
	var operator bool
	cmd := &cobra.Command{
		Use: "policy", Short: "Print the least-privilege IAM policy for the table", Args: cobra.NoArgs,
		Long: `policy prints, as JSON, the IAM policy of programs that use the table and the partition that --store names.
With --operator it is that of those who make the table, and of table check. It sends nothing.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			rest, err := c.dynamoDBOnly("policy")
			if err != nil {
				return err
			}
			client, table, options, err := dynamoDB(cmd.Context(), rest)
			if err != nil {
				return err
			}
			arn := arnOf(client.Options().Region, account, table)
			text, err := dynamokv.Policy(arn, options...)
			if operator {
				text, err = dynamokv.TablePolicy(arn)
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.out, text)
			return err
		},
	}
	cmd.Flags().StringVar(&account, "account", "*", "the number of the AWS account that has the table")
	cmd.Flags().BoolVar(&operator, "operator", false, "print the policy of who makes the table")
	return cmd
}

// arnOf names a table in AWS.
func arnOf(region, account, table string) string {
	partition := "aws"
	switch {
	case strings.HasPrefix(region, "cn-"):
		partition = "aws-cn"
	case strings.HasPrefix(region, "us-gov-"):
		partition = "aws-us-gov"
	}
	return fmt.Sprintf("arn:%s:dynamodb:%s:%s:table/%s", partition, region, account, table)
}
