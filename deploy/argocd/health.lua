-- What Argo CD shows for an OpenAIRun. It runs with the table and base libraries alone: no string or os functions.
--   Progressing  not seen yet, or it goes on by itself
--   Suspended    it waits for a person, for tool results or for the end of spec.suspend: a wave or hook waits with it
--   Healthy      completed, or with `waitForCompletion: false` created
--   Degraded     it ended otherwise, or a person must act
-- A finished run is never Suspended: a wave would wait for it for ever.
local function health(status, message)
  return { status = status, message = message }
end

local meta = obj.metadata or {}
if meta.deletionTimestamp ~= nil then
  return health("Progressing", "Being deleted: a run that still goes is cancelled first")
end

local status = obj.status or {}
if meta.generation ~= nil and status.observedGeneration ~= meta.generation then
  return health("Progressing", "Waiting for the operator to see the resource as it is now")
end

local is = {}
local message
for _, condition in ipairs(status.conditions or {}) do
  is[condition.type] = condition.status
  if condition.type == "Ready" then
    message = condition.message
  end
end
if message == nil or message == "" then
  message = status.phase or "Waiting for the operator"
end

if is.Ready == nil then
  return health("Progressing", message)
end
if is.Stalled == "True" then
  return health("Degraded", message)
end
if is.Finished ~= "True" and (is.ActionRequired == "True" or is.Suspended == "True") then
  return health("Suspended", message)
end
if is.Reconciling == "True" then
  return health("Progressing", message)
end
if is.Ready == "True" then
  return health("Healthy", message)
end
if is.Finished == "True" then
  return health("Degraded", message)
end
return health("Progressing", message)
