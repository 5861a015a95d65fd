// kstatus reads Kubernetes objects, one JSON document a line, and writes for each a line of JSON: what the library judges by which Flux
// judges them (and, in another copy, Helm).
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

type verdict struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "kstatus:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	reader := bufio.NewReader(in)
	decoder := json.NewDecoder(reader)
	encoder := json.NewEncoder(out)
	for {
		var content map[string]any
		if err := decoder.Decode(&content); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("failed to read an object: %w", err)
		}
		result, err := status.Compute(&unstructured.Unstructured{Object: content})
		if err != nil {
			return fmt.Errorf("failed to judge an object: %w", err)
		}
		if err := encoder.Encode(verdict{Status: string(result.Status), Message: result.Message}); err != nil {
			return fmt.Errorf("failed to write a verdict: %w", err)
		}
	}
}
