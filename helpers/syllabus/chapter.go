package syllabus

// Chapter has the tests of the five questions that the chapter itself asks, in its order. A reader begins with them.
var Chapter = []string{
	"TestBundle_WhatDoesRuncNeedBeforeItCanCreateAContainer",
	"TestLifecycle_WhatIsTheDifferenceBetweenCreateAndStart",
	"TestTask_WhereDoesTheShimAppearWhenContainerdStartsATask",
	"TestBundle_HowDoesContainerdsGeneratedBundleRelateToTheHandBuiltOne",
	"TestEvents_WhatCanContainerdTellUsWhileTheTaskIsRunning",
}
