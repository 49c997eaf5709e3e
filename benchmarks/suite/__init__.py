"""The side-by-side benchmark behind `make bench`: cases, packages, a runner that resumes, and the page it writes."""
