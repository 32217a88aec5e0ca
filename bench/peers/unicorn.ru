run lambda { |env| [200, { "Content-Type" => "text/plain", "Content-Length" => Process.pid.to_s.size.to_s }, [Process.pid.to_s]] }
