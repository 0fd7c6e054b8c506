package exporters

import (
	"embed"
	"net/http"
	"path"

	"ffmpeg-agent/messages/job"
)

// The page consists of three files and is shown without any other.
//
//go:embed page
var pageFiles embed.FS

// PageRoutes are the files of the page that shows the agent in a browser. It reads /status and
// /jobs.
func PageRoutes() map[string]http.Handler {
	routes := map[string]http.Handler{}
	for name, kind := range map[string]string{"page.html": "text/html; charset=utf-8", "page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8"} {
		content, err := pageFiles.ReadFile(path.Join("page", name))
		if err != nil {
			panic(err) // not reached: the files are part of the program
		}
		routes["/"+name] = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			h := w.Header()
			h.Set("Content-Type", kind)
			h.Set("Cache-Control", "no-cache")
			h.Set("X-Content-Type-Options", "nosniff")
			h.Set("Referrer-Policy", "no-referrer")
			h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
			_, _ = w.Write(content) // fails if the client has gone
		})
	}
	return routes
}

// recentLimit is how many attempts the page lists.
const recentLimit = 50

// JobsHandler responds with the latest attempts as JSON, to clients with full access.
func JobsHandler(recent func() ([]job.Summary, error)) http.Handler {
	return RequireFullAccess(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		all, err := recent()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		writeJSON(w, http.StatusOK, append([]job.Summary{}, all[:min(recentLimit, len(all))]...))
	}))
}
